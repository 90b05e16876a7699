"""Tasks on the cluster: a queue of them, and a few Ray Tune trials that take task after task."""

import io
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from typing import Any

import ray
import ray.tune

from raycib.config.plan import AdapterGroup
from raycib.config.presets import Execution
from raycib.environment import environment
from raycib.runtime.capacity import TRIAL_CPUS, of_a_worker
from raycib.runtime.cluster import DRIVER_RESOURCE
from raycib.runtime.demand import Bundles, Demand
from raycib.runtime.engine_pool import GONE
from raycib.runtime.holds import beside
from raycib.runtime.leases import LOOK_S, Ended, Leases, Task, width
from raycib.runtime.memory_kills import ends_a_trial, was_without_memory
from raycib.runtime.pieces import Piece
from raycib.runtime.progress import News, waiting
from raycib.runtime.trial import run_trial
from raycib.store import Store

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN",
}  # fmt: skip
"""Tune would write them into the command line of every trial; nodes have their own."""
TRIES = 8
"""Of a task whose worker is lost; it resumes from the store's checkpoint each time. One that got
further is tried as often again: spot nodes come and go."""
QUEUES = 4
"""That may be lost, each of which was made anew."""


def trial_resources(execution: Execution, pins_drivers: bool) -> dict[str, float]:
    """What a trial takes for itself: all that training takes, or next to nothing where it waits
    for workers that have resources of their own."""
    if execution.workers > 1:
        return {"CPU": TRIAL_CPUS} | ({DRIVER_RESOURCE: 0.01} if pins_drivers else {})
    return of_a_worker(execution)


def demand_of(execution: Execution, pins_drivers: bool, trials: int) -> Bundles:
    """What so many trials take of a cluster, with their workers."""
    one = [trial_resources(execution, pins_drivers)]
    if execution.workers > 1:
        one += [of_a_worker(execution)] * execution.workers
    return one * trials


def run_tasks(
    tasks: Sequence[Task], ended: Callable[[Ended], None], fail_fast: bool, **where: Any
) -> None:
    """Have `tasks` done; `ended` hears of each as it is over, `where` is for `_do_tasks`. Where the
    queue is lost another one gives out what is not over. The results are in the store."""
    over: set[str] = set()

    def heard(one: Ended) -> None:
        over.add(one.name)
        ended(one)

    for lost in range(QUEUES):
        left = [
            Task(one.name, one.after - over, one.needs - over)
            for one in tasks
            if one.name not in over
        ]
        leases = _leases(left, 1 if fail_fast else TRIES, fail_fast, again=lost > 0)
        try:
            return _do_tasks(left, leases, heard, fail_fast=fail_fast, **where)
        except OSError as error:
            if error.strerror and not error.filename:  # pyarrow's, of Tune's books
                error.filename = where["books"]
            raise
        except GONE:
            if lost + 1 == QUEUES or _is_there(leases):
                raise
            print("note: who gives tasks out was lost; what is not over is begun anew", flush=True)


def _is_there(leases: Any) -> bool:
    try:
        ray.get(leases.joined.remote())
    except GONE:
        return False
    return True


def _do_tasks(
    tasks: Sequence[Task],
    leases: Any,
    ended: Callable[[Ended], None],
    pieces: Mapping[str, Piece],
    store: Store,
    execution: Execution,
    told: Callable[[dict[str, News], str], None],
    storage: str,
    books: str,
    trials: int,
    pins_drivers: bool,
    fail_fast: bool,
    grows: bool = False,
) -> None:
    """Have the tasks of a queue done by so many `trials` side by side; `pieces` says what each task
    is, and `told` hears how far all are. A cluster that `grows` is asked for all of them at once,
    until all have begun. Tune's own `books` are read by nobody."""
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # an interruption ends the sweep
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the store has all of it
    for quiet in (("TUNE_PRINT_ALL_TRIAL_ERRORS", "0"), ("RAY_IGNORE_UNHANDLED_ERRORS", "1")):
        os.environ.setdefault(*quiet)  # a line says it, no traceback
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
    with environment(dict.fromkeys(CREDENTIALS)):
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


def _leases(tasks: Sequence[Task], tries: int, fail_fast: bool, again: bool) -> Any:
    """The queue, in an actor beside the driver: a node that goes takes no sweep with it."""
    actor: Any = ray.remote(num_cpus=0)(Leases)
    return actor.options(scheduling_strategy=beside()).remote(tasks, tries, fail_fast, again)


class _News(ray.tune.Callback):
    """Tells the driver what has ended, between two turns of Tune's own loop: in one thread."""

    def __init__(
        self,
        leases: Any,
        ended: Callable[[Ended], None],
        told: Callable[[dict[str, News], str], None],
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
        told, ended, joined, awaited = ray.get(self._leases.news.remote())
        if joined >= self._trials:
            self._begun()
        self._told(told, waiting(awaited) if joined else "a worker starts")
        with self._aloud():
            for one in ended:
                self._ended(one)


def _named(config: dict[str, Any]) -> Any:
    """Tune sees a worker's name, which makes its logs readable; the trial sees all of it."""

    def trial(own: dict[str, Any]) -> None:
        run_trial(config | own)

    return trial
