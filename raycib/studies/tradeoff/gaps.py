"""The safety alignment gap and the capability gap of a model (Trade-offs paper, Eq. 3, 4, 19, 20).

All in nats an answer, as means over rows with standard errors; differences are paired row by row
and never clipped: a gap may be negative.
"""

import math
from collections.abc import Sequence
from typing import Any

from raycib.evals.scores import load_values
from raycib.store import Store
from raycib.studies.tradeoff.divergence import entropy
from raycib.studies.tradeoff.measure import GapSpec
from raycib.studies.tradeoff.results import Mean

Z95 = 1.959964


def mean_with_error(values: Sequence[float]) -> Mean:
    """Mean, 95 % interval and standard error (sample standard deviation / sqrt n)."""
    n = len(values)
    mean = math.fsum(values) / n
    se = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n) if n > 1 else None
    low, high = (None, None) if se is None else (mean - Z95 * se, mean + Z95 * se)
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
