"""Tasks on the cluster: a few Ray Tune trials that stay for the whole sweep. Each trains by itself,
or waits for a group of Ray Train workers that train together; they take task after task."""

import io
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import Any

import ray
import ray.tune

from raycib.config.plan import AdapterGroup
from raycib.config.presets import Execution
from raycib.errors import UserError
from raycib.importing import no_collections
from raycib.runtime.capacity import TRIAL_CPUS
from raycib.runtime.cluster import DRIVER_RESOURCE, ENVIRONMENT
from raycib.runtime.demand import Bundles, Demand
from raycib.runtime.holds import beside
from raycib.runtime.leases import LOOK_S, WAIT, Ended, Leases, Outcome, Task, Undone, width
from raycib.runtime.live_progress import Reporter
from raycib.runtime.memory_kills import TellsLeases, ends_a_trial, was_without_memory
from raycib.runtime.notice import Notice
from raycib.runtime.pieces import Piece
from raycib.runtime.progress import News
from raycib.store import Store, StoreError

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN",
}  # fmt: skip
TRIES = 8
"""Of a task whose worker is lost; it resumes from the store's checkpoint each time. One that got
further is tried as often again: spot nodes come and go."""
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
    resources = {"CPU": execution.cpus_per_worker, "GPU": execution.gpus_per_worker}
    TorchTrainer(
        work,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if execution.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=execution.workers,
            use_gpu=execution.gpus_per_worker > 0,
            resources_per_worker={name: amount for name, amount in resources.items() if amount},
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


def trial_resources(execution: Execution, pins_drivers: bool) -> dict[str, float]:
    """What a trial takes for itself: all that training takes, or next to nothing where it waits
    for workers that have resources of their own."""
    if execution.workers > 1:
        return {"CPU": TRIAL_CPUS} | ({DRIVER_RESOURCE: 0.01} if pins_drivers else {})
    taken = {"CPU": execution.cpus_per_worker, "GPU": execution.gpus_per_worker}
    return {name: amount for name, amount in taken.items() if amount}


def demand_of(execution: Execution, pins_drivers: bool, trials: int) -> Bundles:
    """What so many trials take of a cluster, with their workers."""
    one = [trial_resources(execution, pins_drivers)]
    if execution.workers > 1:
        taken = {"CPU": execution.cpus_per_worker, "GPU": execution.gpus_per_worker}
        one += [{name: amount for name, amount in taken.items() if amount}] * execution.workers
    return one * trials


def run_tasks(
    tasks: Sequence[Task],
    pieces: Mapping[str, Piece],
    store: Store,
    execution: Execution,
    ended: Callable[[Ended], None],
    told: Callable[[dict[str, News]], None],
    storage: str,
    books: str,
    trials: int,
    pins_drivers: bool,
    fail_fast: bool,
    grows: bool = False,
) -> None:
    """Have `tasks` done by so many `trials` side by side; `pieces` says what each task is, `ended`
    hears of each as it is over, and `told` how far all are. A cluster that `grows` is asked for all
    of them at once, until all have begun. The results are in the store; Tune's own `books` are read
    by nobody."""
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # an interruption ends the sweep
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the store has all of it
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # a line says it, no traceback
    leases = _leases(tasks, 1 if fail_fast else TRIES, fail_fast)
    failures = 0 if fail_fast else TRIES * (len(tasks) + _checkpoints(pieces, execution))
    config = {
        "failures": failures,
        "leases": leases,
        "pieces": dict(pieces),
        "execution": execution.model_dump_json(),
        "store": store.root,
        "storage": storage,
    }
    holders = [f"worker-{number}" for number in range(min(trials, width(tasks)))]
    demand = Demand(demand_of(execution, pins_drivers, len(holders)) if grows else ())
    news = _News(leases, ended, told, len(holders), demand.give_back)
    with _without_credentials():
        tuner = ray.tune.Tuner(
            ray.tune.with_resources(_named(config), trial_resources(execution, pins_drivers)),
            param_space={"holder": ray.tune.grid_search(holders)},
            tune_config=ray.tune.TuneConfig(
                max_concurrent_trials=len(holders),
                trial_name_creator=lambda trial: trial.config["holder"],
                trial_dirname_creator=lambda trial: trial.config["holder"],
            ),
            run_config=ray.tune.RunConfig(
                name="tune",
                storage_path=books,
                verbose=0,
                callbacks=[news],
                failure_config=ray.tune.FailureConfig(max_failures=failures, fail_fast=fail_fast),
            ),
        )
        try:
            # Tune prints where its files are, even if it is silent.
            with ends_a_trial(), redirect_stdout(io.StringIO()):
                grid = tuner.fit()
        finally:
            demand.give_back()
    errors = [str(result.error) for result in grid if result.error is not None]
    ray.get(leases.abandon.remote(errors[0] if errors else ""))
    news.look()
    ray.kill(leases)


def _checkpoints(pieces: Mapping[str, Piece], execution: Execution) -> int:
    """How many are saved in all, at most: after each of them a worker may be lost anew."""
    groups = [piece for piece in pieces.values() if isinstance(piece, AdapterGroup)]
    longest = [max(job.stage.steps for job in group.jobs) for group in groups]
    return sum(steps // execution.checkpoint_every for steps in longest)


def _leases(tasks: Sequence[Task], tries: int, fail_fast: bool) -> Any:
    """The queue, in an actor beside the driver: a node that goes takes no sweep with it."""
    actor: Any = ray.remote(num_cpus=0)(Leases)
    return actor.options(scheduling_strategy=beside()).remote(tasks, tries, fail_fast)


class _News(ray.tune.Callback):
    """Tells the driver what has ended, between two turns of Tune's own loop: in one thread."""

    def __init__(
        self,
        leases: Any,
        ended: Callable[[Ended], None],
        told: Callable[[dict[str, News]], None],
        trials: int,
        begun: Callable[[], None],
    ) -> None:
        """`begun` is called while so many `trials` have begun, or had."""
        self._leases, self._ended, self._told, self._last = leases, ended, told, 0.0
        self._trials, self._begun = trials, begun
        self._aloud = partial(redirect_stdout, sys.stdout)
        """Tune's own words go nowhere, ours do not."""

    def __reduce__(self) -> Any:
        """Into Tune's books, which nobody reads, goes nothing of the driver."""
        return ray.tune.Callback, ()

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        if time.monotonic() - self._last >= LOOK_S:
            self.look()
            self._last = time.monotonic()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """One line says what happened."""
        lost = trial.config["holder"]
        if was_without_memory(trial):
            ray.get(self._leases.starve.remote(lost))
        with self._aloud():
            print(f"note: {lost} was lost; another goes on from its last checkpoint", flush=True)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """It is not started again; without this the others would wait for its task for ever."""
        ray.get(self._leases.leave.remote(trial.config["holder"]))

    def look(self) -> None:
        """Tell of everything new."""
        asked = (self._leases.told, self._leases.ended, self._leases.joined)
        told, ended, joined = ray.get([one.remote() for one in asked])
        if joined >= self._trials:
            self._begun()
        self._told(told)
        with self._aloud():
            for one in ended:
                self._ended(one)


@contextmanager
def _without_credentials() -> Iterator[None]:
    """Tune would write them into the command line of every trial; nodes have their own."""
    held = {name: os.environ.pop(name) for name in CREDENTIALS & os.environ.keys()}
    try:
        yield
    finally:
        os.environ |= held


def _named(config: dict[str, Any]) -> Any:
    """Tune sees a worker's name, which makes its logs readable; the trial sees all of it."""

    def trial(own: dict[str, Any]) -> None:
        run_trial(config | own)

    return trial
