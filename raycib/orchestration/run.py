"""Do what a sweep still needs, phase by phase, on a Ray cluster."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from raycib.errors import UserError
from raycib.evals.judges import (
    ChatJudge,
    CompletionJudge,
    Judge,
    JudgePrompt,
    JudgeUnavailable,
)
from raycib.model_files import context_length, find
from raycib.orchestration.cluster import Cluster, connect
from raycib.orchestration.progress import Watch
from raycib.orchestration.serve import JudgeHandle, start_judge
from raycib.orchestration.sweep import FAILURES, Sweep
from raycib.orchestration.train import run_packs
from raycib.presets import Execution
from raycib.spec import JudgeSpec

__all__ = ["JudgeUnavailable", "Work", "do", "make_judge"]

SUBJECTS_AT_ONCE = 8
"""Models that answer together; their answers are stored together."""
VERDICT_TOKENS = 16


@ray.remote(max_calls=1)  # the process ends with the task and gives its memory back
def prepare(*arguments: Any) -> None:
    """`worker.prepare` where the accelerator is; the driver never imports torch."""
    from raycib.orchestration import worker

    worker.prepare(*arguments)


@ray.remote
class Answering:
    """`worker.Answering` where the accelerator is."""

    def __init__(self, *arguments: Any) -> None:
        from raycib.orchestration import worker

        self._inner = worker.Answering(*arguments)

    def answer(self, *arguments: Any) -> int:
        """How many answers were new."""
        return self._inner.answer(*arguments)


class Work:
    """One run of a sweep: the phases in order, the services they need, and what was counted."""

    def __init__(self, sweep: Sweep, cluster: Cluster, folder: Path) -> None:
        self.sweep, self.cluster = sweep, cluster
        self.plan = sweep.plan(cluster.packs_at_once)
        self.failures: dict[str, tuple[str, str]] = {}
        """(reason, traceback) of stages that failed in this run, by key."""
        self.counts = {"stages_trained": 0, "engine_starts": 0, "judge_calls": 0}
        self.timings: dict[str, float] = {}
        steps = sum(j.stage.steps for wave in self.plan.waves for pack in wave for j in pack.jobs)
        self.watch = Watch(folder, steps)
        self._engine: Any = None
        self._judge: JudgeHandle | None = None
        self._reader: Judge | None = None

    def run(self) -> None:
        """All phases. Raises `JudgeUnavailable`; whatever was done before stays done."""
        execution = self.sweep.setup.execution
        with self.watch:
            try:
                if execution.judge_starts_early:
                    self._start_early()
                with self._phase("training"):
                    self._train(execution, self._prepare(execution))
                with self._phase("answering"):
                    self._answer()
                with self._phase("judging"):
                    self._ask_judge()
            finally:
                self._stop_services()

    @contextmanager
    def _phase(self, name: str, detail: str = "") -> Iterator[None]:
        self.watch.enter(name, detail)
        began = time.monotonic()
        try:
            yield
        finally:
            self.timings[name] = time.monotonic() - began

    def _start_early(self) -> None:
        """The services that will be needed: they load while adapters are trained."""
        sweep = self.sweep
        will_answer = bool(self.plan.to_train or sweep.unanswered)
        if will_answer or sweep.book.missing(sweep.pairs()):
            self._start_judge()
        if will_answer:
            self._start_engine()

    def _prepare(self, execution: Execution) -> Any:
        """Begin with references and the aligned model's own measures; packs wait for the end of it
        while their processes start."""
        sweep = self.sweep
        task: Any = prepare
        prepared = task.options(
            num_cpus=execution.cpus_per_worker, num_gpus=execution.gpus_per_worker
        ).remote(
            sweep.store,
            sweep.setup.model,
            sweep.references(),
            list(sweep.evals.values()),
            sweep.setup.lora,
            execution.gpus_per_worker,
        )
        if execution.gpus_per_worker:
            _result(prepared)  # it holds the GPU that a pack would wait for
        return prepared

    def _train(self, execution: Execution, prepared: Any) -> None:
        sweep, options = self.sweep, self.sweep.setup.options
        for key in sweep.failed_before:
            sweep.store.discard(FAILURES, key)
        before = sweep.trained
        for wave in self.plan.waves:
            failed = run_packs(
                wave,
                sweep.store,
                execution,
                prepared,
                storage=_storage(sweep.store.root),
                packs_at_once=self.cluster.packs_at_once,
                pins_drivers=self.cluster.pins_drivers,
                fail_fast=options.fail_fast,
            )
            for key, (reason, whole) in failed.items():
                self.failures[key] = (reason, whole)
                sweep.remember_failure(key, reason, whole)
            if failed and options.fail_fast:
                break
        _result(prepared)
        sweep.refresh()
        self.counts["stages_trained"] = len(sweep.trained - before)

    def _start_engine(self) -> None:
        """The vLLM engine of the base model; it loads while something else goes on."""
        sweep, execution = self.sweep, self.sweep.setup.execution
        if self._engine is not None:
            return
        asked = [rows for one in sweep.evals.values() for rows in one.asked]
        model = sweep.setup.model
        longest = max(rows.max_length + rows.max_tokens for rows in asked)
        self._engine = Answering.options(
            num_cpus=execution.engine_cpus, num_gpus=execution.engine_gpus
        ).remote(
            sweep.store,
            model,
            max(stage.exported_rank for stage in sweep.stages.values()),
            context_length(model.source, longest),
        )
        self.counts["engine_starts"] += 1

    def _answer(self) -> None:
        """Answers, a few models at a time; a judge that is up reads some while others are given."""
        sweep = self.sweep
        subjects = sweep.unanswered
        if subjects:
            self._start_engine()
        groups = [
            subjects[i : i + SUBJECTS_AT_ONCE] for i in range(0, len(subjects), SUBJECTS_AT_ONCE)
        ]
        coming = [self._ask(group) for group in groups]
        for number, answers in enumerate(coming):
            self.watch.detail = f"{number * SUBJECTS_AT_ONCE} of {len(subjects)} models done"
            _result(answers)
            if self._judge is not None:
                self._ask_judge()
        if self._engine is not None:
            ray.kill(self._engine)  # its memory and its GPU are free for the judge
            self._engine = None
        sweep.refresh()

    def _ask(self, subjects: list[str]) -> Any:
        """Queue all prompts of some models at the engine."""
        sweep = self.sweep
        asked = {
            rows.key: rows
            for subject in subjects
            for one in sweep.asked[subject].values()
            for rows in one.asked
        }
        return self._engine.answer.remote(subjects, sweep.setup.model.key, list(asked.values()))

    def _start_judge(self) -> None:
        setup = self.sweep.setup
        if setup.judge.kind == "endpoint" or self._judge is not None:
            return
        self._judge = start_judge(
            find(setup.judge.source),
            cpus=setup.execution.judge_cpus,
            gpus=setup.execution.judge_gpus,
            max_model_len=context_length(setup.judge.source),
        )
        self.counts["engine_starts"] += 1

    def _ask_judge(self) -> None:
        sweep = self.sweep
        pairs = sweep.pairs()
        missing = len(sweep.book.missing(pairs))
        self.watch.detail = f"{missing} answers to read"
        if not missing:
            return
        self._start_judge()
        if self._reader is None:
            self._reader = make_judge(sweep.setup.judge, self._judge_url())
        self.counts["judge_calls"] += sweep.book.ask(self._reader, pairs)

    def _judge_url(self) -> str:
        if self._judge is None:
            return self.sweep.setup.judge.source
        try:
            return self._judge.wait_until_ready()
        except (RuntimeError, TimeoutError) as error:
            raise JudgeUnavailable(str(error)) from error

    def _stop_services(self) -> None:
        if self._judge is not None and "RAY_ADDRESS" in os.environ:
            self._judge.stop()  # a cluster of one's own goes down as a whole
        if self._engine is not None:
            ray.kill(self._engine)


def _result(reference: Any) -> Any:
    """The result of remote work; a person's error crosses back as itself."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise


def make_judge(spec: JudgeSpec, url: str) -> Judge:
    """The judge of a spec, behind `url`."""
    if spec.kind == "endpoint":
        return ChatJudge(url, spec.weights)
    prompt = JudgePrompt(
        find(spec.source),
        max_length=context_length(spec.source) - VERDICT_TOKENS,
        assistant_prefix=spec.prefix,
    )
    return CompletionJudge(
        url,
        "judge",
        prompt,
        weights_fingerprint=spec.weights,
        categories=spec.categories,
        max_tokens=VERDICT_TOKENS,
    )


def _storage(root: str) -> str:
    """Where Ray keeps its own books: beside the results, absolute since workers change folders."""
    return f"{root}/ray" if "://" in root else str(Path(root).absolute() / "ray")


def do(sweep: Sweep, folder: Path) -> Work:
    """Connect to a cluster, say where to look, and do what the sweep needs."""
    cluster = connect(sweep.setup.execution)
    work = Work(sweep, cluster, folder)
    lanes = [len(pack.jobs) for wave in work.plan.waves for pack in wave]
    print(
        f"packs of {lanes} lanes, {cluster.packs_at_once} at once; "
        f"Ray dashboard {cluster.dashboard or 'off'}",
        flush=True,
    )
    try:
        work.run()
    finally:
        if "RAY_ADDRESS" not in os.environ:
            ray.shutdown()
    return work
