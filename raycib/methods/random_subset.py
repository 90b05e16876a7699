"""Training on a random part of the task ("Random" of the CIB paper).

Deviations from the paper: it says no more than "random sample selection". Of the readings, replay
of old samples and random negatives do not fit its own figures; a subset does.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import DECIMALS, About, Method
from raycib.data.chat import Encoded
from raycib.hooks import Hooks


class RandomSubset(Method):
    """Plain LoRA on a random subset of the task's rows, drawn anew for every seed."""

    about: ClassVar[About] = About(
        name="Random subset",
        paper='"Random" of the CIB paper, Table 2; "Random selection" of SEAL, arXiv:2410.07471',
        strength="1 - fraction: the share of rows left out",
        passes="none; a share of the steps is saved",
        needs="nothing",
        deviations="the paper says no more than 'random sample selection'; 0.8 is SEAL's fraction",
        color="#8C8C8C",
        mark=">",
        acts_by="no paper says; ours: fewer updates, so a shorter way",
        mechanism={"distance": "lower"},
    )
    zero: ClassVar = {"fraction": 1.0}
    kind: Literal["random_subset"] = "random_subset"
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of the task's rows that is trained on; 1 is plain LoRA."""

    @classmethod
    def at(cls, strength: float, **others: Any) -> Self:
        """Leaving out this share of the rows."""
        return cls(fraction=round(1 - strength, DECIMALS), **others)

    @property
    def strength(self) -> float:
        """Share of rows left out."""
        return round(1 - self.fraction, DECIMALS)

    def rows_trained(self, task_rows: int) -> int:
        """At least one row."""
        return max(1, round(self.fraction * task_rows))

    def faint(self) -> Self:
        """Nearly all rows are all of them."""
        return self.model_copy(update={"fraction": 0.999})

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """Three of five rows."""
        return {"": cls(fraction=0.6)}

    def build(self) -> Hooks:
        """Fewer rows."""
        return Hooks(rows=self._subset)

    def _subset(
        self, task: Sequence[Encoded], safety: Sequence[Encoded], seed: int
    ) -> list[Encoded]:
        """A pure function of the seed and the number of rows, in the task's order."""
        import torch

        from raycib.randomness import generator

        count = self.rows_trained(len(task))
        drawn = torch.randperm(len(task), generator=generator(seed, "subset"))[:count]
        return [task[i] for i in drawn.sort().values.tolist()]
