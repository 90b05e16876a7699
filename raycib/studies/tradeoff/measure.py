"""What both gaps of the Trade-offs paper are computed from, measured on every model, and the gaps
(Eq. 3, 4, 19, 20).

All in nats an answer, as means over rows with standard errors; differences are paired row by row
and never clipped: a gap may be negative.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel

from raycib.config import EvalSpec, Feature, Layer, Measure, Pooling, RowsSpec, digest
from raycib.config.evals import DECISION
from raycib.config.measure import InMemory
from raycib.evals.scores import load_values
from raycib.metrics import student
from raycib.store import Store
from raycib.store.kinds import GAPS
from raycib.studies.tradeoff.divergence import entropy
from raycib.studies.tradeoff.results import Mean


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


def mean_with_error(values: Sequence[float]) -> Mean:
    """Mean, Student's 95 % interval and standard error (sample standard deviation / sqrt n).

    The normal quantile takes the error for known: of 5 rows its interval has the mean in 87 %.
    """
    n = len(values)
    mean = math.fsum(values) / n
    se = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n) if n > 1 else None
    half = None if se is None else student(n - 1) * se
    low, high = (None, None) if half is None else (mean - half, mean + half)
    return Mean(value=mean, low=low, high=high, se=se, n=n)


def paired_gap(own: Sequence[float], reference: Sequence[float]) -> Mean:
    """Mean of the differences, row by row: Eq. 19 and 20."""
    return mean_with_error([a - b for a, b in zip(own, reference, strict=True)])


def gap_scores(
    store: Store, model_id: str, aligned: str, unconstrained: str | None, gaps: GapSpec
) -> dict[str, Any]:
    """Both gaps of a model, and the alignment tax: what ``GapScores`` adds.

    Against trained models (`aligned`, and `unconstrained`: the same fine-tuning without any
    defence, None where there is none), and, where the law of the rows is known, against its
    entropy. Raises `Missing`.
    """
    own, before = (load_values(store, one, gaps) for one in (model_id, aligned))
    found: dict[str, Any] = {
        "alignment_gap": paired_gap(own["alignment"], before["alignment"]),
        "alignment_nll": mean_with_error(own["alignment"]),
        "capability_nll": mean_with_error(own["task"]),
        "max_nll": max(*own["alignment"], *own["task"]),
        # Its counts and one of its errors are told apart from others'.
        **{f"tax_{name}" if name in ("n", "labels", "slack_se") else name: value
           for name, value in own["tax"].items()},
    }  # fmt: skip
    if unconstrained is not None:
        free = load_values(store, unconstrained, gaps)
        found["capability_gap"] = paired_gap(own["task"], free["task"])
    for name, rows, losses in (
        ("alignment_gap_exact", gaps.alignment, own["alignment"]),
        ("capability_gap_exact", gaps.task, own["task"]),
    ):
        least = entropy(rows.source)
        if least is not None:
            found[name] = mean_with_error([loss - least for loss in losses])
    return found
