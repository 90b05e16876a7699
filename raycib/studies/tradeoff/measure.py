"""What both gaps of the Trade-offs paper are computed from, measured on every model."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import BaseModel

from raycib.config import EvalSpec, Feature, Layer, Measure, Pooling, RowsSpec, digest
from raycib.config.evals import DECISION
from raycib.config.measure import InMemory
from raycib.store.kinds import GAPS


class GapSpec(Measure):
    """Rows that the gaps of the Trade-offs paper are measured on."""

    key_name: ClassVar[str] = "GapSpec"
    folder: ClassVar[str] = GAPS
    file: ClassVar[str] = "losses.json"

    alignment: RowsSpec
    """Of the original alignment data: the safety alignment gap, Eq. 19."""
    task: RowsSpec
    """Of the task: the capability gap, Eq. 20."""

    @property
    def features(self) -> tuple[tuple[Pooling, Layer], ...]:
        """The representations of the task's rows between which the alignment tax is taken."""
        return ((DECISION, "final_norm"),)

    @property
    def referred(self) -> tuple[tuple[RowsSpec, tuple[Feature, ...]], ...]:
        """The task's rows."""
        return ((self.task, self.features),)

    def stored_key(self, model_id: str) -> str:
        """Of the losses of a model (a stage's key, or the aligned model's) on these rows."""
        rows = [one.identity() | {"max_tokens": None} for one in (self.alignment, self.task)]
        return digest({"losses": 1, "subject": model_id, "rows": rows})

    def measure(self, models: InMemory, slots: Sequence[int]) -> Mapping[int, BaseModel]:
        """Each row's loss, and how representations predict the first token of an answer."""
        from raycib.studies.tradeoff.losses import row_losses

        cache = models.reference(self.task, self.features)
        alignment, task = models.encode(self.alignment), models.encode(self.task)
        return row_losses(models.adapters, slots, alignment, task, cache)


def gaps_of(evals: EvalSpec) -> GapSpec:
    """The rows of an evaluation's gaps."""
    return next(one for one in evals.measures if isinstance(one, GapSpec))
