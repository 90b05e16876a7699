"""A sweep's phases on a Ray cluster: remote jobs, trials, an engine and a served judge.

What is behind a remote job is imported there alone, so the driver never imports torch.
"""

import io
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from raycib.config import JudgeSpec
from raycib.config.plan import Plan
from raycib.config.presets import Execution
from raycib.console import tell_lost
from raycib.errors import LOST, line_of
from raycib.evals.alone import Pick
from raycib.evals.judge_server import JudgeUnavailable
from raycib.evals.judges import Judge
from raycib.evals.verdicts import Pair, Told
from raycib.runtime.capacity import fit_at_once, judges_for, replicas
from raycib.runtime.cluster import connect
from raycib.runtime.engine_pool import GONE, EnginePool
from raycib.runtime.engine_process import EngineProcess, result_of
from raycib.runtime.judge import on_disk, unserved_judge
from raycib.runtime.leases import Ended, Task
from raycib.runtime.live_progress import LiveView
from raycib.runtime.named_judges import NamedJudge
from raycib.runtime.pieces import Pending, Piece
from raycib.runtime.planning.phases import trainers
from raycib.runtime.serve import JudgeHandle, ServedJudge
from raycib.runtime.sweep import Sweep
from raycib.runtime.train import run_tasks
from raycib.runtime.watch import Watch, parts

MODELS_AT_ONCE = 8
"""Models that answer together, at most; their answers are stored together."""
A_DAY_S = 86400.0
"""What is killed says so; what is asked meanwhile waits for long answers."""


class RayRuntime:
    """The cluster of `RAY_ADDRESS`, or one on this machine that ends with the sweep."""

    lost = GONE
    """What is raised where a part of it is gone."""

    def __init__(self, sweep: Sweep) -> None:
        execution = sweep.setup.execution
        self.sweep = sweep
        self.cluster = connect(
            execution,
            any(one.spec.kind == "guard" for one in sweep.setup.judges),
            sweep.setup.options.dashboard,
        )
        self.groups_at_once = self._trials = self.cluster.groups_at_once
        self.engine_starts = 0
        # Services that start while adapters are trained would otherwise wait for each other.
        self.overlaps = execution.judge_starts_early and fit_at_once(
            execution, self.cluster.resources
        )
        """Whether engine and judge work while adapters are still trained."""
        self.one_process = self.overlaps and not self.cluster.shared and _is_small(execution)
        """Whether one process holds both engines."""
        # Ray's own books are read by nobody; what a killed driver leaves of them is swept.
        self._books = ExitStack()
        own = self._books.enter_context(sweep.store.scratch())
        self._tune_books, self._storage = str(own / "tune"), _storage(sweep.store.root, own)
        self._say = partial(print, file=sys.stdout, flush=True)
        """While Tune trains, and at the end, all else that prints is silenced."""
        self._processes: list[EngineProcess] = []
        """Those with an engine of the base model, and who gives them work."""
        self._pool: EnginePool | None = None
        self._judge: NamedJudge | None = None
        """The one that is served, or asked, now."""
        self._served: JudgeHandle | None = None
        self._reader: Judge | None = None
        self._view: LiveView
        self._watch = Watch(parts(), self._end_without_ray)

    def __str__(self) -> str:
        dashboard = self.cluster.dashboard or "off (--dashboard)"
        return f"{self._trials} at once; Ray dashboard {dashboard}"

    def expect(self, plan: Plan) -> None:
        """Fewer workers than fit where there is little to train."""
        self._trials = trainers(self.sweep, plan, self.groups_at_once)

    @property
    def has_room(self) -> bool:
        """Whether engine and judge can load while all begins: a core of this machine is
        nobody's."""
        execution = self.sweep.setup.execution
        taken = self._trials * execution.workers * max(1.0, execution.cpus_per_worker)
        return not self.cluster.shared and self.cluster.resources.get("CPU", 0.0) >= taken + 1

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
            ended,
            self.sweep.setup.options.fail_fast,
            pieces=pieces,
            store=self.sweep.store,
            execution=self.sweep.setup.execution,
            told=self._view.tell,
            storage=self._storage,
            books=self._tune_books,
            trials=self._trials,
            pins_drivers=self.cluster.pins_drivers,
            # Else there are as many groups as there is room for now.
            grows=self.cluster.shared and self.sweep.setup.execution.groups_at_once is not None,
        )

    @property
    def engines(self) -> int:
        """How many there are side by side, or will be: the first question starts them."""
        self.start_engine()
        return len(self._processes)

    @property
    def models_at_once(self) -> int:
        """Who answer together, at most: those whose requests an engine takes into one batch."""
        return 1 if self.sweep.setup.model.quantization else MODELS_AT_ONCE

    @property
    def _idle(self) -> list[dict[str, float]]:
        """What each node has for engines; nothing is known to be left while adapters are
        trained."""
        return [] if self.overlaps else [one["Resources"] for one in ray.nodes() if one["Alive"]]

    def start_engine(self) -> None:
        """The engines of the base model; they load while something else goes on. Safe to call
        twice."""
        if self._pool is None:
            execution, sweep = self.sweep.setup.execution, self.sweep
            models = len(sweep.asked) - len(sweep.answered)
            many = replicas(execution.engine_replicas, execution.engine_gpus, self._idle, models)
            for number in range(len(self._processes), many):
                self._processes.append(self._process(number))
            self._pool = EnginePool(self._processes, self._say)
            self._pool.start()
            self.engine_starts += sum(one.is_new for one in self._processes)

    def _process(self, number: int) -> EngineProcess:
        """Where an engine of the base model is, or will be."""
        sweep = self.sweep
        base = sweep.setup.model, sweep.largest_rank, sweep.engine_length, sweep.targets
        return EngineProcess(*base, sweep.setup.execution, self.cluster.shared, number)

    def ask(self, model_ids: Sequence[str]) -> Pending:
        """All prompts to some models, of the engine that is free next."""
        evals = self.sweep.evaluations(model_ids)
        return self._asked("answer", evals, weight=len(model_ids))

    def ask_alone(self, picks: Sequence[Pick]) -> Pending:
        """Some answers again, each alone, once all others are given."""
        return self._asked("ask_alone", picks)

    def _asked(self, what: str, *given: Any, weight: int = 0) -> Pending:
        self.start_engine()
        assert self._pool is not None
        return self._pool.ask(what, self.sweep.store, *given, weight=weight).result

    def stop_engine(self) -> None:
        """Its memory and its GPU are free for a judge in a process of its own. Safe to call
        twice."""
        if not self.one_process:
            self._end_processes()

    def _end_processes(self) -> None:
        if self._pool is not None:
            self._pool.end()
            self._tell("engines answered for", self._pool.done, "models")
        else:
            for process in self._processes:
                process.end()
        self._processes, self._pool = [], None

    def _tell(self, who: str, done: Sequence[int], what: str) -> None:
        """How much each of several did."""
        if len(done) > 1:
            self._say(f"{len(done)} {who} {', '.join(map(str, done))} {what}")

    def start_judge(self, judge: NamedJudge, conversations: int = 0) -> None:
        """A judge of ours beside the engine that answers, or as a service. The one before it ends
        first: they may want one GPU. Safe to call twice."""
        if self._judge is not judge:
            self._stop_judge(free=True)
            self._judge, self._reader = judge, None
        if judge.spec.kind != "guard":
            return
        if self.one_process:
            self._beside.load_guard.remote(on_disk(judge.spec))
        elif self._served is None:
            execution = self.sweep.setup.execution
            useful = judges_for(conversations)
            many = replicas(execution.judge_replicas, execution.judge_gpus, self._idle, useful)
            self._served = JudgeHandle(judge.spec, execution, self.cluster.shared, many)

    def _stop_judge(self, free: bool = False) -> None:
        if self._served is not None:
            self._served.stop(free)
            idle = [0] * (self._served.replicas - len(self._served.read))
            read = [*self._served.read.values(), *idle]
            self._tell("replicas of the judge read", read, "conversations")
            self._served = None

    @property
    def _beside(self) -> Any:
        """The one process that has both engines."""
        if not self._processes:
            self._processes.append(self._process(0))
        return self._processes[0].actor

    def ask_judge(self, judge: NamedJudge, pairs: Sequence[Pair], told: Told) -> int:
        """Have it read what is missing; how many it read, of which `told` hears. One that was taken
        down meanwhile starts again. Raises `JudgeUnavailable`."""
        for first in (True, False):
            self.start_judge(judge, len(pairs))
            try:
                if self._reader is None:
                    self._reader = judge.reading(self._make_reader(judge))
                return self.sweep.verdict_caches[judge.name].ask(self._reader, pairs, told)
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
        there, process = on_disk(spec), self._beside
        try:
            result_of(process.load_guard.remote(there))
        except RayError as error:
            why = f"the judge {spec.source} did not start: {line_of(error, -1)}"
            raise JudgeUnavailable(why) from error
        self.engine_starts += 1
        ask = partial(process.judge.remote, there)
        return ServedJudge(f"{spec.source} on Ray", ask, request_timeout_s=A_DAY_S)

    def close(self) -> None:
        """Stop what was started, and leave nothing that nobody reads again."""
        self._watch.check()
        # Ray would say of each call which ends with it that it is asked again.
        with redirect_stdout(io.StringIO()):
            self._stop_judge()
            self._end_processes()
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
    """Whether both engines are alone, and content with one thread and no GPU."""
    gpus = execution.engine_gpus, execution.judge_gpus
    many = execution.engine_replicas or 1, execution.judge_replicas or 1
    cpus = execution.engine_cpus, execution.judge_cpus
    return not any(gpus) and max(many) == 1 and max(cpus) <= 1


def _storage(root: str, own: Path) -> str:
    """Where workers of Ray Train keep its books: where all of them see it, and a driver's own,
    since two may work on one store."""
    return f"{root}/ray/{secrets.token_hex(4)}" if "://" in root else str(own / "train")
