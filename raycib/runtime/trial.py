"""A Ray Tune trial, which stays for the whole sweep: it trains by itself, or waits for a group of
Ray Train workers that train together; they take task after task."""

import time
import traceback
from typing import Any

import ray
import ray.tune

from raycib.config.plan import AdapterGroup
from raycib.config.presets import Execution
from raycib.errors import UserError
from raycib.importing import no_collections
from raycib.runtime.capacity import of_a_worker
from raycib.runtime.cluster import ENVIRONMENT
from raycib.runtime.leases import LOOK_S, WAIT, Outcome, Undone
from raycib.runtime.live_progress import Reporter
from raycib.runtime.memory_kills import TellsLeases
from raycib.runtime.watch import Notice
from raycib.store import Store, StoreError

CONTROLLER_FAILURES = 2


def work(config: dict[str, Any]) -> None:
    """A worker's whole life: task after task."""
    with no_collections():
        from raycib.models.device import ended_for_memory, ran_out
        from raycib.runtime.worker import TrainWorker

    leases, holder, pieces = config["leases"], config["holder"], config["pieces"]
    execution = Execution.model_validate_json(config["execution"])
    worker = TrainWorker(Store(config["store"]), execution, Reporter(leases), Notice())
    workers = worker.workers
    leads = workers.rank == 0
    ended = dict(workers.gather((ray.get_runtime_context().get_node_id(), ended_for_memory())))
    number = workers.gather(ray.get(leases.join.remote(holder, ended)) if leads else 0)[0]
    while (name := ray.get(leases.take.remote(holder, number, leads))) is not None:
        if name == WAIT:
            time.sleep(LOOK_S)
            continue
        try:
            outcome = worker.do(pieces[name], ray.get(leases.parts.remote(name)) if leads else 1)
        except (UserError, StoreError) as mistake:  # would be made again
            outcome = Outcome(error=mistake)
        except Exception as error:
            said = traceback.format_exc()
            if isinstance(pieces[name], AdapterGroup):  # this process may be broken: it ends, and
                ray.get(leases.say.remote(holder, said))  # a new one takes the task up
                if isinstance(error, RuntimeError) and ran_out(error):
                    ray.get(leases.starve.remote(holder))
                raise
            outcome = Outcome(error=Undone(said))
        if leads:
            ray.get(leases.finish.remote(holder, outcome))
        number += 1
        if outcome.elsewhere:
            time.sleep(LOOK_S)


def run_trial(config: dict[str, Any]) -> None:
    """One trial, reported to Tune once: the trial itself is the worker, or starts a group of
    workers and waits for it."""
    grouped = Execution.model_validate_json(config["execution"]).workers > 1
    (work_with_group if grouped else work)(config)
    ray.tune.report({"done": True})


def work_with_group(config: dict[str, Any]) -> None:
    """Ray Train's worker group from start to end."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    execution = Execution.model_validate_json(config["execution"])
    TorchTrainer(
        work,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if execution.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=execution.workers,
            use_gpu=execution.gpus_per_worker > 0,
            resources_per_worker=of_a_worker(execution),
        ),
        run_config=RunConfig(
            name=config["holder"],
            callbacks=[TellsLeases(config["leases"], config["holder"])],
            storage_path=config["storage"],
            failure_config=FailureConfig(
                max_failures=config["failures"],
                controller_failure_limit=CONTROLLER_FAILURES,
            ),
            worker_runtime_env={"env_vars": ENVIRONMENT},
        ),
    ).fit()
