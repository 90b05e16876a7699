"""What is said of a set of scores: how they are summed up, what tables call it, and which way is
better. No torch."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from pydantic import BaseModel

Z95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""
FEW_ROWS = 20
"""Held-out rows that say little of a task."""


class Rate(BaseModel, frozen=True, extra="allow"):
    """A share in [0, 1], or a mean of scores, with its 95 % interval; None where there is none."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Answers that it is over."""
    unread: int = 0
    """Answers left out because no verdict could be read; never counted as safe."""


ENDS = tuple(name for name in Rate.model_fields if name != "value")
"""Of the columns of a rate besides its value: "hrr" has "hrr_low" and so on."""


def rate(hits: int, n: int, unread: int = 0) -> Rate:
    """`hits` of `n` as a `Rate`. Raises ValueError where n is 0: such a rate does not exist."""
    if n <= 0:
        raise ValueError(f"a rate needs at least one answer; got {hits} of {n} ({unread} unread)")
    low, high = wilson_ends(hits, n)
    return Rate(value=hits / n, low=low, high=high, n=n, unread=unread)


def wilson_ends(hits: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of `hits` of `n`, as Newcombe (Statistics in Medicine 17, 1998, method
    3) writes it; scipy's `binomtest` gives the same bits after a p-value that nobody wants."""
    p, z = hits / n, Z95
    centre, width = 2 * n * p + z**2, 2 * (n + z**2)
    half = z / width * math.sqrt(4 * n * p * (1 - p) + z**2)
    low = centre / width - half if hits else 0.0
    return low, centre / width + half if hits < n else 1.0


@dataclass(frozen=True)
class Metric:
    """Of scores that are True, False, a number in [0, 1], or None where nothing can be said."""

    title: str
    """What tables call it."""
    better: Literal["higher", "lower", ""]
    """"" where neither is."""
    unit: Literal["%", "nats"] = "%"
    decimals: int = 1
    counted: bool = True
    """Whether it comes with an interval and the number of answers that it is over."""

    @property
    def heading(self) -> str:
        """Of a column, with its unit."""
        return f"{self.title}, {self.unit}"

    @property
    def factor(self) -> int:
        """From a stored value to the unit."""
        return 100 if self.unit == "%" else 1

    def of(self, scores: Sequence[float | None]) -> Rate:
        """Value, 95 % interval and n. Where all scores are 0 or 1 they are a share with Wilson's
        interval; else a mean with Student's, which equal ones have not: that none differs of a few
        does not make another one certain. What is None, or no number, is left out and counted as
        unread; where nothing else is left, nothing is claimed."""
        found = Counter(scores)
        times = {one: n for one, n in found.items() if one is not None and not math.isnan(one)}
        n = sum(times.values())
        unread = len(scores) - n
        if not n:
            return Rate(value=None, low=None, high=None, n=0, unread=unread)
        if times.keys() <= {0, 1}:
            return rate(times.get(1, 0), n, unread)
        known = [score for score in scores if score in times]
        return _mean(known, unread)


def _mean(values: Sequence[float], unread: int) -> Rate:
    """Of values in [0, 1], where the ends of its interval lie as well."""
    n, mean = len(values), sum(values) / len(values)
    if len(set(values)) == 1:
        return Rate(value=mean, low=None, high=None, n=n, unread=unread)
    import numpy as np

    half = student(n - 1) * float(np.std(values, ddof=1) / n**0.5)
    low, high = max(mean - half, 0.0), min(mean + half, 1.0)
    return Rate(value=mean, low=low, high=high, n=n, unread=unread)


@cache
def student(df: float) -> float:
    """The 97.5 % quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.975))


METRICS = {
    "mutual_information": Metric("I(Z;C)", "", "nats", 3, counted=False),
    "mutual_information_last_prompt": Metric(
        "I(Z;C) at last prompt token", "", "nats", 3, counted=False
    ),
    "hrr": Metric("HRR", "lower"),
    "refusal_rate": Metric("Refusals", ""),
    "incoherent_rate": Metric("Incoherent", "lower"),
    "over_refusal": Metric("Over-refusal", "lower"),
    "eval_loss": Metric("Task loss", "lower", "nats", 3, counted=False),
    "utility": Metric("Utility", "higher", counted=False),
    "accuracy": Metric("Task accuracy", "higher"),
}
"""What every sweep measures, by the name of the score and in the order of its tables."""
FURTHER_METRICS = {
    "f1": Metric("F1", "higher", counted=False),
    "has_answer": Metric("Right where there is an answer", "higher"),
    "f1_has_answer": Metric("F1 where there is an answer", "higher", counted=False),
    "no_answer": Metric("Right where there is none", "higher"),
    "hrr_true": Metric("True HRR", "lower"),
    "hrr_rogan_gladen": Metric("Harmful, by one error", "lower"),
    "hrr_prediction_powered": Metric("Harmful, by own labels", "lower"),
    "judge_agreement": Metric("Verdicts that agree with the truth", "higher"),
}
"""What is measured where a task's scorer or the source of its prompts can tell it; shown by cell.
"""
SHARES = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "em")
"""Metrics of lm-eval that are shares of its documents, or means of such; others are shown as it
gives them."""


def is_share(name: str) -> bool:
    """Whether a score of lm-eval ("task metric filter") is in [0, 1], so that people read it in per
    cent."""
    metric = name.split()[1]
    return metric in SHARES or metric.endswith("_acc")
