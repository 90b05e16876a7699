"""A sweep from its runs to its scores: plan, prepare, train, answer, judge, score.

Every phase reads what is missing from the store and adds it there, so a sweep that stopped
anywhere is continued by running it again, and a finished one is only read.
"""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from datetime import datetime
from functools import cached_property
from typing import Any

from raycib.config import EvalSpec, LmEvalSpec, ModelSpec, RunSpec
from raycib.config.plan import Plan, make_plan
from raycib.evals.answers import Answers, answers_key
from raycib.evals.scores import Missing, Scoring, harmful_pairs
from raycib.evals.verdicts import Pair, VerdictCache
from raycib.model_files import is_shipped
from raycib.runtime.before_alignment import in_process, jobs_of
from raycib.runtime.named_judges import NamedJudge
from raycib.runtime.study import AlignedJob
from raycib.runtime.sweep_config import SweepConfig
from raycib.store import Record, Store
from raycib.store.kinds import (
    ADAPTER_FILE,
    BENCHMARKS,
    GENERATIONS,
    MEASURES,
    OF_SWEEPS,
    POINTS,
    STAGES,
)


def times_of(record: Record) -> tuple[int, int]:
    """When the training of a stage began and ended, in milliseconds since 1970."""
    ended = int(1000 * datetime.fromisoformat(record.created).timestamp())
    return ended - int(1000 * record.about.get("seconds", 0)), ended


class Sweep:
    """The runs of one question, and what of them is still to do."""

    def __init__(self, setup: SweepConfig, runs: Sequence[RunSpec]) -> None:
        self.setup, self.runs = setup, list(runs)
        self.store = Store(setup.options.out)
        self.answers = Answers(self.store)
        self.judge = setup.judges[0]
        """Whose verdicts count."""
        self.verdict_caches = {
            one.name: VerdictCache(self.store, one.spec.key, one.spec.source)
            for one in setup.judges
        }
        self._scorings = {
            name: Scoring(self.answers, cache) for name, cache in self.verdict_caches.items()
        }
        self.stages = {stage.key: stage for run in runs for stage in run.adapters}
        """Those that fine-tune an adapter."""
        self.alignment_stages = {s.key: s for run in runs for s in run.stages if s.lora is None}
        """Those that make the model which the adapters are for."""
        self.evals = {run.evals.key: run.evals for run in runs}
        self.asked: dict[str, dict[str, EvalSpec]] = {}
        """Evaluations of each stage, of points of its training, and of the aligned model."""
        for run in runs:
            for model_id in (setup.model.key, *(stage.key for stage in run.adapters)):
                self.asked.setdefault(model_id, {})[run.evals.key] = run.evals
            for point in run.points.values():
                self.asked.setdefault(point, {})[run.evals.key] = run.evals.at_points()
        self.points = {point for run in runs for point in run.points.values()}
        """Adapters in the middle of a training."""
        self.kept: set[str] = set()
        """Those of them that are there."""
        self.trained: set[str] = set()
        self.adapters: dict[str, str | None] = {}
        """sha256 of what was trained."""
        self.took: dict[str, dict[str, Any]] = {}
        """What a stage's record says that its training took."""
        self.times: dict[str, tuple[int, int]] = {}
        """When its training began and ended, in milliseconds since 1970."""
        self.refresh()

    def refresh(self) -> None:
        """Look again at what the store holds. Adapters are verified when they are first seen: a
        damaged one counts as not trained, is moved aside and trained anew."""
        there = set(self.store.keys(STAGES))
        self.trained &= there
        self.look(key for key in (*self.alignment_stages, *self.stages) if key in there)
        kinds = (MEASURES, BENCHMARKS, *self._others)
        self._measured = {key for kind in kinds for key in self.store.keys(kind)}
        self._answered = set(self.store.keys(GENERATIONS)) | set(self.store.keys(BENCHMARKS))
        self._look_at_points()

    @property
    def _others(self) -> set[str]:
        """Folders of what its study measures."""
        return {measure.folder for one in self.evals.values() for measure in one.measures}

    @property
    def kinds(self) -> set[str]:
        """Of all that it may store."""
        return {*OF_SWEEPS, *self._others, *(one.folder for one in self.jobs)}

    def look(self, keys: Iterable[str]) -> int:
        """Look for adapters of stages that were not trained when last looked; how many are new."""
        new = [key for key in keys if key not in self.trained and self._verified(key)]
        self.trained |= set(new)
        self._look_at_points()
        return len(new)

    def _look_at_points(self) -> None:
        if self.points - self.kept:
            self.kept = self.points.intersection(self.store.keys(POINTS))

    def _verified(self, key: str) -> bool:
        record = self.store.get(STAGES, key)
        if record is None:
            return False
        self.adapters[key] = record.files.get(ADAPTER_FILE)
        self.took[key] = {name: record.about.get(name) for name in ("tokens", "peak_bytes")}
        self.times[key] = times_of(record)
        return True

    @property
    def verdict_cache(self) -> VerdictCache:
        """What the judge has said."""
        return self.verdict_caches[self.judge.name]

    @property
    def scoring(self) -> Scoring:
        """How models are scored by what the judge has said."""
        return self._scorings[self.judge.name]

    def seen(self) -> "Sweep":
        """The same sweep as it is now, for whoever looks while it goes on."""
        other = copy(self)
        other.trained, other.adapters = set(self.trained), dict(self.adapters)
        other.took, other.times = dict(self.took), dict(self.times)
        return other

    def under(self, judge: NamedJudge) -> "Sweep":
        """The same sweep where another judge's verdicts count."""
        other = copy(self)
        other.judge = judge
        return other

    @property
    def unheard(self) -> list[NamedJudge]:
        """Judges that have not read all answers there are."""
        return [
            one for one in self.setup.judges if self.verdict_caches[one.name].missing(self.pairs())
        ]

    def measured(self, model_id: str, evals: EvalSpec) -> bool:
        """Whether all that is measured with the model in memory is there."""
        return self._measured.issuperset(evals.measured_keys(model_id))

    @property
    def model_made(self) -> bool:
        """Whether the model that all adapters are for is there."""
        return self.trained.issuperset(self.alignment_stages)

    @property
    def prepared(self) -> bool:
        """Whether all that is measured of the aligned model itself is there."""
        return all(self.measured(self.setup.model.key, one) for one in self.evals.values())

    def plan(self, groups_at_once: int) -> Plan:
        """What is left to train and to measure."""
        return make_plan(
            self.runs,
            lambda stage: stage.key in self.trained,
            lambda stage, evals: self.measured(stage.key, evals),
            groups_at_once,
            self.setup.execution.group_size,
            self.setup.execution.most_slots,
            self.kept.__contains__,
        )

    def evaluations(self, model_ids: Iterable[str]) -> dict[str, list[EvalSpec]]:
        """By what models are evaluated, each evaluation once a model."""
        return {model_id: list(self.asked[model_id].values()) for model_id in model_ids}

    @property
    def benchmarks(self) -> list[LmEvalSpec]:
        """lm-eval's, each once."""
        every = (spec for one in self.evals.values() for spec in one.benchmarks)
        return list({spec.key: spec for spec in every}.values())

    @property
    def unscored(self) -> list[LmEvalSpec]:
        """lm-eval's, once for each model that has no scores of them."""
        return [
            spec
            for model_id, evals in self.asked.items()
            for spec, engine in {
                spec.key: (spec, one.engine) for one in evals.values() for spec in one.benchmarks
            }.values()
            if spec.stored_key(model_id, engine) not in self._measured
        ]

    @property
    def engine_length(self) -> int:
        """Tokens of a prompt and its answer that an engine has room for."""
        sets = self.setup.sets
        asked = [rows for one in self.evals.values() for rows in one.asked]
        longest = max((one.longest + 1 for one in self.benchmarks if one.in_words), default=0)
        return max(sets.engine_length(asked), min(sets.context, longest))

    @property
    def largest_rank(self) -> int:
        """Of all adapters, as they are exported."""
        return max(stage.exported_rank for stage in self.stages.values())

    @property
    def targets(self) -> tuple[tuple[str, ...], ...]:
        """The sets of modules that adapters have."""
        return tuple({stage.lora.targets: None for stage in self.stages.values() if stage.lora})

    @property
    def unanswered(self) -> list[str]:
        """Trained models, the aligned one included, that have not answered all prompts."""
        return self.unanswered_of(self.asked)

    def unanswered_of(self, model_ids: Iterable[str]) -> list[str]:
        """Those of some models."""
        aligned = {self.setup.model.key} if self.model_made else set()
        return [
            model_id
            for model_id in model_ids
            if (model_id in self.trained or model_id in aligned or model_id in self.kept)
            and not self._answered.issuperset(self._answer_keys[model_id])
        ]

    @property
    def answered(self) -> list[str]:
        """Trained models, the aligned one included, that have answered all prompts."""
        there = self.trained | ({self.setup.model.key} if self.model_made else set())
        return [model_id for model_id, keys in self._answer_keys.items()
                if model_id in there and self._answered.issuperset(keys)]  # fmt: skip

    @cached_property
    def _answer_keys(self) -> dict[str, list[str]]:
        """Of all that each model answers."""
        return {
            model_id: [
                key
                for one in evals.values()
                for key in (
                    *(answers_key(model_id, rows, one.engine) for rows in one.asked),
                    *one.answered_keys(model_id),
                )
            ]
            for model_id, evals in self.asked.items()
        }

    def pairs(self, model_ids: Iterable[str] | None = None) -> Iterator[Pair]:
        """All (prompt, answer) pairs that a judge has to have read, as far as answered; or those of
        some models."""
        some = self.asked if model_ids is None else model_ids
        asked = [(model_id, one) for model_id in some for one in self.asked[model_id].values()]
        if model_ids is None:
            asked += [(base.key, one) for base, one in self.before_alignment]
        for model_id, one in asked:
            try:
                yield from harmful_pairs(self.answers, model_id, one)
            except Missing:
                continue

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        plan = self.plan(1)
        return (
            not plan.levels
            and self.prepared
            and not self.unanswered
            and not self.unheard
            and not self.jobs
        )

    @property
    def jobs(self) -> list[AlignedJob]:
        """What is computed once, of the aligned model by its study and of the base before it, and
        is not stored yet."""
        room = self.engine_length
        asked = (one for pair in self.before_alignment for one in jobs_of(*pair, room))
        jobs = {one.stored_key: one for one in (*asked, *self.setup.study.jobs(self))}
        return [one for one in jobs.values() if self.store.get(one.folder, one.stored_key) is None]

    @property
    def before_alignment(self) -> list[tuple[ModelSpec, EvalSpec]]:
        """The base that is aligned first, with what it is asked. The embedded world's is not: what
        it says is known (docs/world.md)."""
        stage = self.setup.inputs.alignment_stage
        if stage is None or is_shipped(stage.model.source):
            return []
        return [(stage.model, in_process(one)) for one in self.evals.values()]
