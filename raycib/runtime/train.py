"""Groups on the cluster: one Ray Tune trial each, which trains by itself or waits for a group of
Ray Train workers that train together."""

import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import ray.tune
from ray.exceptions import RayTaskError

from raycib.config.plan import AdapterGroup
from raycib.config.presets import Execution
from raycib.errors import UserError
from raycib.runtime.capacity import TRIAL_CPUS
from raycib.runtime.cluster import DRIVER_RESOURCE, ENVIRONMENT
from raycib.runtime.live_progress import Reporter
from raycib.runtime.run import Failures, Pending, failed_group
from raycib.store import Store

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN",
}  # fmt: skip
WORKER_FAILURES = 3
"""Restarts of a worker group; it resumes from the store's checkpoint each time."""
CONTROLLER_FAILURES = 2
TRIAL_FAILURES = 1
"""Restarts of a trial that only waits for its workers."""
LONE_FAILURES = (WORKER_FAILURES + 1) * (TRIAL_FAILURES + 1) - 1
"""Restarts of a trial that trains by itself: as often as those of a group together."""


def train_on_workers(config: dict[str, Any]) -> dict[str, str]:
    """A worker's whole life; returns why each failed stage of the group failed, by key."""
    from raycib.runtime.worker import run_group

    group = AdapterGroup.model_validate_json(config["group"])
    try:  # afterwards references and the aligned model's measures are in the store
        config["prepared"]()
    except (RayTaskError, UserError) as error:  # would fail again: no reason to start anew
        cause = error.cause if isinstance(error, RayTaskError) else error
        return {job.stage.key: f"not prepared: {cause}" for job in group.jobs}
    execution = Execution.model_validate_json(config["execution"])
    return run_group(group, Store(config["store"]), execution, Reporter())


def run_trial(config: dict[str, Any]) -> None:
    """One trial, reported to Tune once: the trial itself trains the group, or a group of workers
    does that it starts and waits for."""
    grouped = Execution.model_validate_json(config["execution"]).workers > 1
    failures = train_with_group(config) if grouped else train_on_workers(config)
    ray.tune.report({"failures": failures})


def train_with_group(config: dict[str, Any]) -> dict[str, str]:
    """Ray Train's worker group from start to end."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    group = AdapterGroup.model_validate_json(config["group"])
    execution = Execution.model_validate_json(config["execution"])
    resources = {"CPU": execution.cpus_per_worker, "GPU": execution.gpus_per_worker}
    result = TorchTrainer(
        train_on_workers,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if execution.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=execution.workers,
            use_gpu=execution.gpus_per_worker > 0,
            resources_per_worker={name: amount for name, amount in resources.items() if amount},
        ),
        # The name says which group it is; what a restart needs is in the store, under the same
        # name.
        run_config=RunConfig(
            name=group.name,
            storage_path=config["storage"],
            failure_config=FailureConfig(
                max_failures=WORKER_FAILURES, controller_failure_limit=CONTROLLER_FAILURES
            ),
            worker_runtime_env={"env_vars": ENVIRONMENT},
        ),
    ).fit()
    return result.return_value or {}


def trial_resources(execution: Execution, pins_drivers: bool) -> dict[str, float]:
    """What a trial takes for itself: all that training takes, or next to nothing where it waits
    for workers that have resources of their own."""
    if execution.workers > 1:
        return {"CPU": TRIAL_CPUS} | ({DRIVER_RESOURCE: 0.01} if pins_drivers else {})
    taken = {"CPU": execution.cpus_per_worker, "GPU": execution.gpus_per_worker}
    return {name: amount for name, amount in taken.items() if amount}


def run_groups(
    groups: Sequence[AdapterGroup],
    store: Store,
    execution: Execution,
    prepared: Pending,
    storage: str,
    groups_at_once: int,
    pins_drivers: bool,
    fail_fast: bool,
) -> Failures:
    """Train `groups` once what they wait for is `prepared`, at most `groups_at_once` side by
    side: workers in groups live outside of Tune's own books, so this bound alone keeps them from
    starving each other.

    Returns (reason, traceback) of every failed stage, by key. The results are in the store.
    """
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # an interruption ends the sweep
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the store has all of it
    configs = {
        group.name: {
            "group": group.model_dump_json(),
            "execution": execution.model_dump_json(),
            "store": store.root,
            "storage": storage,
            "prepared": prepared,
        }
        for group in groups
    }
    resources = trial_resources(execution, pins_drivers)
    allowed = LONE_FAILURES if execution.workers == 1 else TRIAL_FAILURES
    # Tune's own books are read by nobody and end with it: the results are in the store.
    with tempfile.TemporaryDirectory() as books, _without_credentials():
        tuner = ray.tune.Tuner(
            ray.tune.with_resources(_named(configs), resources),
            param_space={"group": ray.tune.grid_search(list(configs))},
            tune_config=ray.tune.TuneConfig(
                max_concurrent_trials=groups_at_once,
                trial_name_creator=lambda trial: trial.config["group"],
                trial_dirname_creator=lambda trial: trial.config["group"],
            ),
            run_config=ray.tune.RunConfig(
                name="tune",
                storage_path=books,
                verbose=0,
                failure_config=ray.tune.FailureConfig(
                    max_failures=0 if fail_fast else allowed, fail_fast=fail_fast
                ),
            ),
        )
        with redirect_stdout(io.StringIO()):  # it prints where its own files are, even if silent
            grid = tuner.fit()
    failures: Failures = {}
    done: set[str] = set()
    for result in grid:
        name = result.config["group"] if result.config else ""
        if result.error is None and result.metrics and "failures" in result.metrics:
            done.add(name)
            failures |= {key: (why, why) for key, why in (result.metrics["failures"] or {}).items()}
    errors = {r.config["group"]: r.error for r in grid if r.error is not None and r.config}
    for group in groups:
        if group.name not in done:
            failures |= failed_group(group, errors.get(group.name))
    return failures


@contextmanager
def _without_credentials() -> Iterator[None]:
    """Tune would write them into the command line of every trial; nodes have their own."""
    held = {name: os.environ.pop(name) for name in CREDENTIALS & os.environ.keys()}
    try:
        yield
    finally:
        os.environ |= held


def _named(configs: dict[str, dict[str, Any]]) -> Any:
    """Tune sees a group's name, which makes its logs readable; the trial sees all of it."""

    def trial(config: dict[str, Any]) -> None:
        run_trial(configs[config["group"]])

    return trial
