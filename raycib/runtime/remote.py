"""A sweep's phases on a Ray cluster: remote jobs, trials, an engine and a served judge.

What is behind a remote job is imported there alone, so the driver never imports torch.
"""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RaySystemError,
    RayTaskError,
    WorkerCrashedError,
)

from raycib.config import JudgeSpec
from raycib.config.presets import Execution
from raycib.console import tell_lost
from raycib.errors import LOST, UserError
from raycib.evals.alone import Pick
from raycib.evals.judge_server import JudgeUnavailable
from raycib.evals.judges import Judge
from raycib.evals.verdicts import Pair
from raycib.runtime.capacity import fit_at_once
from raycib.runtime.cluster import connect
from raycib.runtime.engine_process import EngineProcess
from raycib.runtime.judge import on_disk, unserved_judge
from raycib.runtime.leases import Ended, Task
from raycib.runtime.live_progress import LiveView
from raycib.runtime.named_judges import NamedJudge
from raycib.runtime.pieces import Piece
from raycib.runtime.serve import JudgeHandle, ServedJudge, start_judge
from raycib.runtime.sweep import Sweep
from raycib.runtime.train import run_tasks
from raycib.runtime.watch import Watch, parts
from raycib.store import StoreError


class Remote(NamedTuple):
    """A result that is on its way; call it to wait for it, wherever it was sent."""

    reference: Any

    def __call__(self) -> Any:
        """The result; a person's error crosses back as itself."""
        try:
            return ray.get(self.reference)
        except RayTaskError as error:
            if isinstance(error.cause, UserError | StoreError):
                raise error.cause from None
            raise


A_DAY_S = 86400.0
"""What is killed says so; what is asked meanwhile waits for long answers."""


class RayRuntime:
    """The cluster of `RAY_ADDRESS`, or one on this machine that ends with the sweep."""

    lost: tuple[type[Exception], ...] = (
        LocalRayletDiedError, NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError,
        RaySystemError, WorkerCrashedError,
    )  # fmt: skip

    def __init__(self, sweep: Sweep) -> None:
        execution = sweep.setup.execution
        self.sweep = sweep
        self.cluster = connect(
            execution,
            any(one.spec.kind == "guard" for one in sweep.setup.judges),
            sweep.setup.options.dashboard,
        )
        self.groups_at_once = self.cluster.groups_at_once
        self.engine_starts = 0
        # Services that start while adapters are trained would otherwise wait for each other.
        self.overlaps = execution.judge_starts_early and fit_at_once(
            execution, self.cluster.resources
        )
        self.one_process = self.overlaps and not self.cluster.shared and _is_small(execution)
        """Whether one process holds both engines."""
        # Ray's own books are read by nobody; what a killed driver leaves of them is swept.
        self._books = ExitStack()
        own = self._books.enter_context(sweep.store.scratch())
        self._tune_books, self._storage = str(own / "tune"), _storage(sweep.store.root, own)
        self._engines: EngineProcess | None = None
        """The process with the base model's engine, and whether that was asked to load."""
        self._loaded = False
        self._judge: NamedJudge | None = None
        """The one that is served, or asked, now."""
        self._served: JudgeHandle | None = None
        self._reader: Judge | None = None
        self._view: LiveView
        self._watch = Watch(parts(), self._end_without_ray)

    def __str__(self) -> str:
        dashboard = self.cluster.dashboard or "off (--dashboard)"
        return f"{self.groups_at_once} at once; Ray dashboard {dashboard}"

    def view(self, folder: Path, steps: int) -> LiveView:
        """The cluster's progress, live."""
        self._view = LiveView(folder, steps)
        return self._view

    def train(
        self, tasks: Sequence[Task], pieces: Mapping[str, Piece], ended: Callable[[Ended], None]
    ) -> None:
        """Trials side by side, which stay until all is done."""
        if not tasks:
            return
        run_tasks(
            tasks,
            pieces,
            self.sweep.store,
            self.sweep.setup.execution,
            ended,
            self._view.tell,
            storage=self._storage,
            books=self._tune_books,
            trials=self.groups_at_once,
            pins_drivers=self.cluster.pins_drivers,
            fail_fast=self.sweep.setup.options.fail_fast,
            # Else there are as many groups as there is room for now.
            grows=self.cluster.shared and self.sweep.setup.execution.groups_at_once is not None,
        )

    def start_engine(self) -> None:
        """The engine of the base model; it loads while something else goes on."""
        if not self._loaded:
            process = self._process()
            process.actor.load.remote()
            self._loaded = True
            self.engine_starts += process.is_new

    def _process(self) -> EngineProcess:
        """Where the engine of the base model is, or will be."""
        sweep, execution = self.sweep, self.sweep.setup.execution
        if self._engines is None:
            base = sweep.setup.model, sweep.largest_rank, sweep.engine_length, sweep.targets
            self._engines = EngineProcess(*base, execution, self.cluster.shared)
        return self._engines

    def ask(self, model_ids: Sequence[str]) -> Remote:
        """Queue all prompts to some models at the engine."""
        self.start_engine()
        asked = self.sweep.rows_asked(model_ids)
        answer = self._process().actor.answer
        return Remote(answer.remote(self.sweep.store, model_ids, asked, self.sweep.benchmarks))

    def ask_alone(self, picks: Sequence[Pick]) -> Remote:
        """Some answers again, each alone, once all others are given."""
        self.start_engine()
        return Remote(self._process().actor.ask_alone.remote(self.sweep.store, picks))

    def stop_engine(self) -> None:
        """Its memory and its GPU are free for a judge in a process of its own."""
        if not self.one_process:
            self._end_process()

    def _end_process(self) -> None:
        if self._engines is not None:
            self._engines.end()
            self._engines, self._loaded = None, False

    def start_judge(self, judge: NamedJudge) -> None:
        """A judge of ours beside the engine that answers, or as a service. The one before it ends
        first: they may want one GPU."""
        if self._judge is not judge:
            if self._served is not None:
                self._served.stop(free=True)
            self._judge, self._served, self._reader = judge, None, None
        if judge.spec.kind != "guard":
            return
        if self.one_process:
            self._process().actor.load_guard.remote(on_disk(judge.spec))
        elif self._served is None:
            execution = self.sweep.setup.execution
            self._served = start_judge(judge.spec, execution, self.cluster.shared)

    def ask_judge(self, judge: NamedJudge, pairs: Sequence[Pair]) -> int:
        """Have it read what is missing; one that was taken down meanwhile starts again."""
        for first in (True, False):
            self.start_judge(judge)
            try:
                if self._reader is None:
                    self._reader = judge.reading(self._make_reader(judge))
                return self.sweep.verdict_caches[judge.name].ask(self._reader, pairs)
            except JudgeUnavailable:
                if not first or self._served is None or self._served.is_up:
                    raise
                self._served = self._reader = None
        raise AssertionError("two tries end with a result or an error")

    def _make_reader(self, judge: NamedJudge) -> Judge:
        if judge.spec.kind != "guard":
            return unserved_judge(judge.spec, judge.url, judge.key_env)
        if self._served is None:
            return self._judge_in_process(judge.spec)
        try:
            server = self._served.wait_until_ready()
        except (RuntimeError, TimeoutError) as error:
            raise JudgeUnavailable(str(error)) from error
        self.engine_starts += self._served.started
        return server

    def _judge_in_process(self, spec: JudgeSpec) -> Judge:
        there, process = on_disk(spec), self._process().actor
        try:
            Remote(process.load_guard.remote(there))()
        except RayError as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise JudgeUnavailable(f"the judge {spec.source} did not start: {why}") from error
        self.engine_starts += 1
        ask = partial(process.judge.remote, there)
        return ServedJudge(f"{spec.source} on Ray", ask, request_timeout_s=A_DAY_S)

    def close(self) -> None:
        """Stop what was started, and leave nothing that nobody reads again."""
        if self._served is not None:
            self._served.stop()
        self._end_process()
        self._books.close()
        self._watch.close()
        self.cluster.close()

    def _end_without_ray(self, why: str) -> None:
        """End this process now: what waits for a Ray that is gone cannot be woken."""
        self._books.close()
        if self.cluster.scratch is not None:
            self.cluster.scratch.remove()
        os._exit(tell_lost(f"{LOST}: {why}"))


def _is_small(execution: Execution) -> bool:
    """Whether both engines are content with one thread and no GPU."""
    wanted = execution.engine_gpus, execution.judge_gpus
    return not any(wanted) and max(execution.engine_cpus, execution.judge_cpus) <= 1


def _storage(root: str, own: Path) -> str:
    """Where workers of Ray Train keep its books: where all of them see it, and a driver's own,
    since two may work on one store."""
    return f"{root}/ray/{secrets.token_hex(4)}" if "://" in root else str(own / "train")
