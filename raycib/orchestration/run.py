"""Do what a sweep still needs, phase by phase, on a Ray cluster."""

import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from raycib.evals.judges import Judge, JudgeUnavailable
from raycib.model_files import context_length, verified
from raycib.orchestration.cluster import Cluster, connect
from raycib.orchestration.elsewhere import Answering, prepare, result_of, run_jobs
from raycib.orchestration.judge import check_judge, endpoint_judge, guard_judge
from raycib.orchestration.progress import Watch
from raycib.orchestration.room import fit_at_once
from raycib.orchestration.serve import JudgeHandle, start_judge
from raycib.orchestration.sweep import Sweep
from raycib.orchestration.train import run_packs
from raycib.plan import Pack
from raycib.presets import Execution
from raycib.store.kinds import FAILURES

__all__ = ["JudgeUnavailable", "Work", "do"]

SUBJECTS_AT_ONCE = 8
"""Models that answer together; their answers are stored together."""


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
        self._storage = _storage(sweep.store.root)
        self._engine: Any = None
        self._coming: dict[tuple[str, ...], Any] = {}
        """Answers that were asked for, by the models that give them together."""
        self._judge: JudgeHandle | None = None
        self._reader: Judge | None = None
        execution = sweep.setup.execution
        self._early = execution.judge_starts_early and fit_at_once(execution, cluster.resources)
        """Services that start while adapters are trained would otherwise wait for each other."""

    def run(self) -> None:
        """All phases. Raises `JudgeUnavailable`; whatever was done before stays done."""
        execution = self.sweep.setup.execution
        with self.watch:
            try:
                if self._early:
                    self._start_early()
                with self._phase("training"):
                    if self._make_model(execution):
                        jobs = self._run_jobs(execution)
                        self._train(execution, self._prepare(execution))
                        result_of(jobs)
                with self._phase("answering"):
                    self._answer()
                with self._phase("judging"):
                    self._ask_judge()
            finally:
                self._stop_services()
                shutil.rmtree(self._storage, ignore_errors=True)  # nobody reads it again

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
        if will_answer and sweep.model_made:
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
            result_of(prepared)  # it holds the GPU that a pack would wait for
        return prepared

    def _run_jobs(self, execution: Execution) -> Any:
        """Begin with what the study asks of the aligned model."""
        jobs = self.sweep.jobs
        task: Any = run_jobs
        if not jobs:
            return ray.put(None)
        began = task.options(
            num_cpus=execution.cpus_per_worker, num_gpus=execution.gpus_per_worker
        ).remote(self.sweep.store, jobs, execution.gpus_per_worker)
        if execution.gpus_per_worker:
            result_of(began)
        return began

    def _make_model(self, execution: Execution) -> bool:
        """Make the model that all adapters are for, where it has to be made; whether it is
        there."""
        sweep = self.sweep
        for key in sweep.failed_before:
            sweep.store.discard(FAILURES, key)
        if sweep.model_made:
            return True
        for wave in self.plan.waves[: self._waves_of_makers]:
            self._run_wave(wave, execution, ray.put(None))
        sweep.refresh()
        if not sweep.model_made:
            reason = "the aligned model was not made"
            self.failures |= dict.fromkeys(sweep.stages.keys() - sweep.trained, (reason, reason))
        elif self._early:
            self._start_engine()
        return sweep.model_made

    @property
    def _waves_of_makers(self) -> int:
        makers = self.sweep.makers
        return sum(all(j.stage.key in makers for p in wave for j in p.jobs)
                   for wave in self.plan.waves)  # fmt: skip

    def _train(self, execution: Execution, prepared: Any) -> None:
        sweep = self.sweep
        for wave in self.plan.waves[self._waves_of_makers :]:
            failed = self._run_wave(wave, execution, prepared)
            if failed and sweep.setup.options.fail_fast:
                break
            if self._engine is not None:  # it answers while the next wave is trained
                self._ask_all()
        result_of(prepared)
        sweep.refresh()

    def _run_wave(self, wave: Sequence[Pack], execution: Execution, prepared: Any) -> bool:
        """Train a wave; whether a stage of it failed."""
        sweep, before = self.sweep, self.sweep.trained
        failed = run_packs(
            wave,
            sweep.store,
            execution,
            prepared,
            storage=self._storage,
            packs_at_once=self.cluster.packs_at_once,
            pins_drivers=self.cluster.pins_drivers,
            fail_fast=sweep.setup.options.fail_fast,
        )
        for key, (reason, whole) in failed.items():
            self.failures[key] = (reason, whole)
            sweep.remember_failure(key, reason, whole)
        sweep.refresh()
        self.counts["stages_trained"] += len(sweep.trained - before)
        return bool(failed)

    def _start_engine(self) -> None:
        """The vLLM engine of the base model; it loads while something else goes on."""
        sweep, execution = self.sweep, self.sweep.setup.execution
        if self._engine is not None:
            return
        asked = [rows for one in sweep.evals.values() for rows in one.asked]
        model = sweep.setup.model
        self._engine = Answering.options(
            num_cpus=execution.engine_cpus, num_gpus=execution.engine_gpus
        ).remote(
            sweep.store,
            model,
            max(stage.exported_rank for stage in sweep.stages.values()),
            sweep.setup.sets.engine_length(asked),
        )
        self.counts["engine_starts"] += 1

    def _answer(self) -> None:
        """Answers, a few models at a time; a judge that is up reads some while others are given."""
        sweep = self.sweep
        if self._not_asked:
            self._start_engine()
            self._ask_all()
        done = 0
        for subjects, answers in self._coming.items():
            self.watch.detail = f"{done} of {sum(map(len, self._coming))} models done"
            result_of(answers)
            done += len(subjects)
            if self._judge is not None:
                self._ask_judge()
        if self._engine is not None:
            ray.kill(self._engine)  # its memory and its GPU are free for the judge
            self._engine = None
        sweep.refresh()

    @property
    def _not_asked(self) -> list[str]:
        """Trained models without all answers, stored or on their way."""
        asked = {subject for subjects in self._coming for subject in subjects}
        return [subject for subject in self.sweep.unanswered if subject not in asked]

    def _ask_all(self) -> None:
        """Queue all prompts of those models at the engine."""
        subjects = self._not_asked
        for start in range(0, len(subjects), SUBJECTS_AT_ONCE):
            group = tuple(subjects[start : start + SUBJECTS_AT_ONCE])
            self._coming[group] = self._ask(group)

    def _ask(self, subjects: Sequence[str]) -> Any:
        """All prompts to some models."""
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
            verified(setup.judge),
            weights=setup.judge.weights,
            cpus=setup.execution.judge_cpus,
            gpus=setup.execution.judge_gpus,
            max_model_len=context_length(setup.judge.source),
            shared=self.cluster.shared,
        )

    def _ask_judge(self) -> None:
        sweep = self.sweep
        pairs = sweep.pairs()
        for first in (True, False):
            missing = len(sweep.book.missing(pairs))
            self.watch.detail = f"{missing} answers to read"
            if not missing:
                return
            self._start_judge()
            try:
                if self._reader is None:
                    self._reader = self._make_reader()
                self.counts["judge_calls"] += sweep.book.ask(self._reader, pairs)
            except JudgeUnavailable:
                if not first or self._judge is None or self._judge.is_up:
                    raise
                self._judge = self._reader = None  # it was taken down meanwhile: once more

    def _make_reader(self) -> Judge:
        setup = self.sweep.setup
        if self._judge is None:
            return endpoint_judge(setup.judge, setup.options.judge_url, setup.options.judge_key_env)
        try:
            server = self._judge.wait_until_ready()
        except (RuntimeError, TimeoutError) as error:
            raise JudgeUnavailable(str(error)) from error
        self.counts["engine_starts"] += self._judge.started
        return guard_judge(setup.judge, server)

    def _stop_services(self) -> None:
        if self._judge is not None:
            self._judge.stop()
        if self._engine is not None:
            ray.kill(self._engine)


def _storage(root: str) -> str:
    """Where Ray keeps its own books: beside the results, absolute since workers change folders,
    and a driver's own, since two may work on one store."""
    own = f"ray/{secrets.token_hex(4)}"
    return f"{root}/{own}" if "://" in root else str(Path(root).absolute() / own)


def do(sweep: Sweep, folder: Path) -> Work:
    """Connect to a cluster, say where to look, and do what the sweep needs."""
    options, trained = sweep.setup.options, sweep.trained.issuperset(sweep.stages)
    if not trained or sweep.unanswered or sweep.book.missing(sweep.pairs()):
        check_judge(sweep.setup.judge, options.judge_url, options.judge_key_env)
    cluster = connect(sweep.setup.execution, sweep.setup.judge.kind != "endpoint")
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
        if not cluster.shared:
            ray.shutdown()
    return work
