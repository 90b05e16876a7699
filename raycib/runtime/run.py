"""Do what a sweep still needs, phase by phase, on a Ray cluster or in this process."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raycib.config.plan import AdapterGroup
from raycib.counting import count
from raycib.errors import LOST, Lost, line_of
from raycib.importing import no_collections
from raycib.runtime.alone import pairs_of, picks_of
from raycib.runtime.failures import forget_failures, remember_failure
from raycib.runtime.judge import check_judge
from raycib.runtime.leases import Ended
from raycib.runtime.named_judges import NamedJudge
from raycib.runtime.pieces import PREPARE, Jobs, Pending, Piece, Prepare, tasks_of
from raycib.runtime.references import references
from raycib.runtime.sweep import Sweep

if TYPE_CHECKING:
    from raycib.runtime.local import LocalRuntime
    from raycib.runtime.remote import RayRuntime

    Runtime = LocalRuntime | RayRuntime
    """Where the phases are done. What is done is in the store; `str` says where it is."""

POINTS_EVERY_S = 5.0
"""Between two looks at the store for adapters in the middle of their training."""

Beside = Callable[["Work"], AbstractContextManager[Any]]
"""What shows people how far the work is."""


class Work:
    """One run of a sweep: the phases in order, and what was counted."""

    def __init__(
        self, sweep: Sweep, runtime: "Runtime", folder: Path, beside: Beside = nullcontext
    ) -> None:
        """What is `beside` it goes on for as long as it does."""
        self.sweep, self.runtime, self._beside = sweep, runtime, beside
        self.plan = sweep.plan(runtime.groups_at_once)
        runtime.expect(self.plan)
        self.failures: dict[str, tuple[str, str]] = {}
        """(reason, traceback) of stages that failed in this run, by key."""
        self.counts = {"stages_trained": 0, "engine_starts": 0, "judge_calls": 0}
        self.counts["stages_reused"] = self.plan.reused
        self.timings: dict[str, float] = {}
        steps = sum(
            j.stage.steps for level in self.plan.levels for group in level for j in group.jobs
        )
        self.view = runtime.view(folder, steps)
        self.view.heard = self._ask_points
        self.view.names = {one.name: one.said for level in self.plan.levels for one in level}
        self._coming: dict[tuple[str, ...], Pending] = {}
        """Answers that were asked for, by the models that give them together."""
        self._asked: set[str] = set()
        """The models of all of these."""
        self._looked = time.monotonic()

    def run(self) -> None:
        """All phases. Raises `JudgeUnavailable`; whatever was done before stays done."""
        with self.view, self._beside(self):
            with self._phase("training"):
                self._train()
            with self._phase("answering"):
                self._answer()
            with self._phase("judging"):
                for judge in self.sweep.setup.judges:
                    self._ask_judge(judge)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.view.enter(name)
        began = time.monotonic()
        try:
            yield
        finally:
            self.timings[name] = time.monotonic() - began
            self.counts["engine_starts"] = self.runtime.engine_starts

    def _start_early(self) -> None:
        """The services that will be needed: they load while adapters are trained."""
        sweep = self.sweep
        will_answer = bool(self.plan.to_train or sweep.unanswered)
        judges = sweep.setup.judges[:1] if will_answer else sweep.unheard[:1]
        for judge in judges:
            self.runtime.start_judge(judge)
        if will_answer and sweep.model_made:
            self.runtime.start_engine()

    def _train(self) -> None:
        """The aligned model where it has to be made, references, groups, and the study's jobs."""
        sweep = self.sweep
        forget_failures(sweep)
        pieces = self._pieces()
        errors: dict[str, Exception] = {}
        early = self.runtime.overlaps and (PREPARE not in pieces or self.runtime.has_room)
        if early:
            self._start_early()

        def ended(one: Ended) -> None:
            piece = pieces[one.name]
            for note in one.notes:
                print(f"note: {one.name}: {note}", flush=True)
            if self.runtime.overlaps and not early and one.name == PREPARE:
                # The first step waited for neither.
                self._start_early()
            if isinstance(piece, AdapterGroup):
                self._remember(piece, one, errors.get(PREPARE))
            elif one.error is not None:
                errors[one.name] = one.error
            if self.runtime.overlaps and sweep.model_made:  # it answers while others are trained
                self.runtime.start_engine()
                self._ask(self._new_models(piece))

        self.runtime.train(tasks_of(pieces), pieces, ended)
        sweep.refresh()
        if errors and sweep.model_made:
            raise next(iter(errors.values()))

    def _pieces(self) -> dict[str, Piece]:
        """All that wants the model in memory, by name, in the order of the plan."""
        sweep, setup = self.sweep, self.sweep.setup
        pieces: dict[str, Piece] = {}
        if not sweep.prepared or self.plan.levels:
            evals = list(sweep.evals.values())
            pieces[PREPARE] = Prepare(references(sweep), evals, setup.model, setup.lora)
        if jobs := sweep.jobs:
            pieces["jobs"] = Jobs(jobs)
        return pieces | {group.name: group for level in self.plan.levels for group in level}

    def _remember(self, group: AdapterGroup, ended: Ended, unprepared: Exception | None) -> None:
        """What of a group was trained, and why the rest was not."""
        sweep = self.sweep
        failed = {key: (why, why) for key, why in ended.failures.items()}
        if ended.error is not None:
            whole, reason = str(ended.error), getattr(ended.error, "reason", str(ended.error))
            if unprepared is not None:
                reason = f"not prepared: {reason}"
                if not sweep.model_made:
                    reason = "the aligned model was not made"
            failed = {job.stage.key: (reason, whole) for job in group.jobs}
        self.failures |= failed
        for key, (reason, whole) in failed.items():
            remember_failure(sweep, key, reason, whole)
        untrained = [job.stage.key for job in group.jobs if job.stage.key not in sweep.trained]
        new = sweep.look(untrained)
        if adopted := len(ended.found.intersection(untrained)):
            told = f"another sweep trained {count(adopted, 'stage')} of it"
            print(f"{group.name}: {told}", flush=True)
        self.counts["stages_reused"] += adopted
        self.counts["stages_trained"] += new - adopted

    def _answer(self) -> None:
        """Answers, a few models at a time; a judge that is up reads some while others are given."""
        self._ask(self.sweep.asked)
        done, asked = 0, len(self._asked)
        for model_ids, answers in self._coming.items():
            loads = "" if done else ", the engine loads first"
            self.view.count(done, asked, f"{done} of {count(asked, 'model')} done{loads}")
            answers()
            done += len(model_ids)
            if self.runtime.overlaps and self.sweep.judge.spec.kind == "guard":
                self._ask_judge(self.sweep.judge, model_ids)
        self.sweep.refresh()
        if self._asked and (picks := picks_of(self.sweep)):
            self.view.detail = f"{len(picks)} of them again, alone"
            self.runtime.ask_alone(picks)()
        self.runtime.stop_engine()

    def _new_models(self, piece: Piece) -> Iterable[str]:
        """Whom to ask once a piece is over: all, until some are asked; then what it made."""
        if not self._asked:
            return self.sweep.asked
        jobs = piece.jobs if isinstance(piece, AdapterGroup) else ()
        stages = [job.stage for job in jobs]
        made = [stage.key if stage.lora else self.sweep.setup.model.key for stage in stages]
        made += [point for job in jobs for point in job.points.values()]
        return [model_id for model_id in dict.fromkeys(made) if model_id in self.sweep.asked]

    def _ask(self, models: Iterable[str]) -> None:
        """Ask those of some models that are there and have neither all answers nor been asked."""
        new = [one for one in self.sweep.unanswered_of(models) if one not in self._asked]
        self._asked |= set(new)
        points = [one for one in new if one in self.sweep.points]
        for alike in ([one for one in new if one not in self.sweep.points], points):
            for lot in lots(
                alike, self.runtime.engines if alike else 1, self.runtime.models_at_once
            ):
                self._coming[lot] = self.runtime.ask(lot)

    def _ask_points(self) -> None:
        """Ask adapters in the middle of their training while that goes on."""
        due = self.runtime.overlaps and time.monotonic() - self._looked > POINTS_EVERY_S
        if due and self.sweep.model_made and self.sweep.points - self.sweep.kept:
            self.sweep.look(())
            self._ask(sorted(self.sweep.kept))
            self._looked = time.monotonic()

    def _ask_judge(self, judge: NamedJudge, models: Iterable[str] | None = None) -> None:
        """Have a judge read all that it has not, or what some models said."""
        pairs = [*self.sweep.pairs(models), *(pairs_of(self.sweep) if models is None else ())]
        if missing := self.sweep.verdict_caches[judge.name].missing(pairs):
            whose = f" by {judge.name}" if len(self.sweep.setup.judges) > 1 else ""
            self.view.detail = f"{count(len(missing), 'answer')} to read{whose}"

            def told(read: int, total: int) -> None:
                said = f"{read} of {count(total, 'answer')} read{whose}"
                if models is None:
                    self.view.count(read, total, said)
                else:  # while models answer, whose speed is told
                    self.view.detail = said

            self.counts["judge_calls"] += self.runtime.ask_judge(judge, missing, told)


def lots(models: Sequence[str], engines: int, at_once: int) -> list[tuple[str, ...]]:
    """Models that answer together, `at_once` at most, dealt so that all engines have as much to
    do."""
    rounds = -(-len(models) // (at_once * engines))
    most = max(1, -(-len(models) // max(1, rounds * engines)))
    return [tuple(models[start : start + most]) for start in range(0, len(models), most)]


def do(sweep: Sweep, folder: Path, beside: Beside = nullcontext) -> Work:
    """Say where to look, and do what the sweep needs, with something `beside` it."""
    will_answer = not sweep.trained.issuperset(sweep.stages) or sweep.unanswered
    for judge in sweep.setup.judges if will_answer else sweep.unheard:
        check_judge(judge.spec, judge.url, judge.key_env)
    runtime = _runtime(sweep)
    try:
        work = Work(sweep, runtime, folder, beside)
        slots = [len(group.jobs) for level in work.plan.levels for group in level]
        print(f"groups of {slots} slots, {runtime}", flush=True)
        work.run()
    except runtime.lost as error:
        raise Lost(f"{LOST}: {line_of(error)}") from error
    finally:
        runtime.close()
    return work


def _runtime(sweep: Sweep) -> "Runtime":
    """Ray and vLLM are imported only where they are used."""
    if sweep.setup.options.local:
        with no_collections():
            from raycib.runtime.local import LocalRuntime

        return LocalRuntime(sweep)
    from raycib.runtime.remote import RayRuntime

    return RayRuntime(sweep)
