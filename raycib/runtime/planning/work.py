"""How much a sweep still has to do: tokens to train on, rows to read, answers to give and judge."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from raycib.config import StageSpec
from raycib.config.base import READ_PROMPTS
from raycib.config.evals import rows_asked
from raycib.config.plan import Plan
from raycib.costs.sizes import Sizes
from raycib.runtime.references import distinct_examples, reference_forwards
from raycib.runtime.sweep import Sweep
from raycib.training.micro_batches import Tokens, expect

DRAWN = 1024
"""Rows of a task that an epoch is drawn from, at most, to count its padding."""


class Trained(NamedTuple):
    """A stage's training in numbers."""

    stage: StageSpec
    tokens: Tokens
    squares: float
    """Sum of the squared lengths of rows, with their padding, if any."""
    scored: float
    """Tokens that are predicted."""
    answering: float | None
    """Tokens that the last layer reads; None: all."""
    beside: float
    """Tokens of safety rows that go through the model beside the task's."""


class Asked(NamedTuple):
    """What one model is asked of one set of rows."""

    prompts: Sequence[int]
    """Tokens of each."""
    max_tokens: int
    """Of an answer."""


@dataclass
class Work:
    """What `plan` of a sweep comes to."""

    sweep: Sweep
    plan: Plan
    sizes: Sizes
    """Of the base."""
    _drawn: dict[tuple[str, int, int], Tokens] = field(default_factory=dict)

    @cached_property
    def stages(self) -> list[Trained]:
        """Those to train, or to train once more for points of their training."""
        return [
            self._trained(job.stage, len(group.jobs))
            for level in self.plan.levels
            for group in level
            for job in group.jobs
            if job.stage.key not in self.sweep.trained
            or not self.sweep.kept.issuperset(job.points.values())
        ]

    @property
    def largest_group(self) -> int:
        """Its slots."""
        groups = (group for level in self.plan.levels for group in level)
        return max((len(group.jobs) for group in groups), default=1)

    def _trained(self, stage: StageSpec, slots: int) -> Trained:
        """A stage in a group of so many slots."""
        execution, trainer = self.sweep.setup.execution, stage.trainer
        if not stage.steps:
            return Trained(stage, Tokens(0, 0, 0, 0), 0, 0, 0, 0)
        rows = self.sweep.setup.sets.used(stage.task)
        times = trainer.epochs * stage.method_in_effect.rows_trained(len(rows)) / len(rows)
        alike = (stage.task.key, trainer.batch_size, slots)
        if alike not in self._drawn:
            few = random.Random(0).sample(rows, min(DRAWN, len(rows)))
            self._drawn[alike] = expect(
                [one.whole for one in few], trainer.batch_size, slots, execution.workers,
                execution.micro_batch_size, execution.micro_batch_tokens,
                execution.micro_batch_tokens is not None and self.sizes.packs,
            )  # fmt: skip
        drawn = self._drawn[alike]
        useful = times * sum(one.whole for one in rows)
        tokens = Tokens(int(useful), int(useful / drawn.share), drawn.largest, drawn.micro_batches)
        squares = times / drawn.share * sum(one.whole**2 for one in rows)
        scored = times * sum(one.whole - one.prompt for one in rows)
        reads = {what for what, _ in stage.method_in_effect.features}
        narrow = self.sizes.narrows and not reads.intersection(READ_PROMPTS)
        answering = scored + times * len(rows) if narrow else None
        return Trained(stage, tokens, squares, scored, answering, self._beside(stage))

    def _beside(self, stage: StageSpec) -> float:
        safety = stage.method_in_effect.safety_rows
        per_step = stage.method_in_effect.extra_rows(0)
        if safety is None or not per_step:
            return 0
        lengths = [one.whole for one in self.sweep.setup.sets.used(safety)]
        return stage.steps * min(per_step, len(lengths)) * sum(lengths) / len(lengths)

    @cached_property
    def forwards(self) -> int:
        """Rows whose reference is not there yet."""
        return max(0, distinct_examples(self.sweep) - reference_forwards(self.sweep))

    @cached_property
    def questioned(self) -> list[str]:
        """Models that will answer."""
        sweep = self.sweep
        coming = [one.stage.key for one in self.stages if one.stage.lora]
        coming = [key for key in coming if key not in sweep.trained]
        coming += sorted(sweep.points - sweep.kept)
        aligned = [] if sweep.model_made else [sweep.setup.model.key]
        return list(dict.fromkeys([*sweep.unanswered, *coming, *aligned]))

    @property
    def asked(self) -> Iterator[Asked]:
        """What is asked, of one model after the other."""
        for model_id in self.questioned:
            for rows in rows_asked(self.sweep.asked[model_id].values()):
                yield Asked(self.sweep.setup.sets.asked(rows), rows.max_tokens)

    @cached_property
    def judged(self) -> int:
        """Conversations that each judge has to read, as far as they are coming or here."""
        coming = (
            rows.num_rows
            for model_id in self.questioned
            for one in self.sweep.asked[model_id].values()
            for rows in one.judged
        )
        return sum(coming) + len(self.sweep.verdict_cache.missing(self.sweep.pairs()))

    @cached_property
    def guards(self) -> list[tuple[str, Sizes]]:
        """Judges that we serve: profile and sizes."""
        specs = [one.spec for one in self.sweep.setup.judges if one.spec.kind == "guard"]
        return [(one.profile, self.sweep.setup.reader.sizes(one.source)) for one in specs]
