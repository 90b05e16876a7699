"""What is said of a set of scores: how they are summed up, what tables call it, and which way is
better. No torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Rate:
    """A share in [0, 1] with its 95 % Wilson interval."""

    value: float
    low: float
    high: float
    n: int
    """Answers that the rate is over."""
    unread: int = 0
    """Answers left out because no verdict could be read; never counted as safe."""


def rate(hits: int, n: int, unread: int = 0) -> Rate:
    """`hits` of `n` as a `Rate`. Raises ValueError where n is 0: such a rate does not exist."""
    if n <= 0:
        raise ValueError(f"a rate needs at least one answer; got {hits} of {n} ({unread} unread)")
    from scipy.stats import binomtest  # a second of import, which --help does without

    interval = binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    return Rate(hits / n, float(interval.low), float(interval.high), n, unread)


@dataclass(frozen=True)
class Metric:
    """Of scores that are True, False, a number in [0, 1], or None where nothing can be said."""

    title: str
    """What tables call it."""
    better: Literal["higher", "lower", ""]
    """"" where neither is."""

    def of(self, scores: Sequence[float | None]) -> dict[str, Any]:
        """Value, 95 % interval and n. Scores of True and False are a share with Wilson's interval;
        others a mean with Student's. None is left out and counted as unread; where nothing else
        is left, nothing is claimed."""
        known = [score for score in scores if score is not None]
        unread = len(scores) - len(known)
        if not known:
            return {"value": None, "low": None, "high": None, "n": 0, "unread": unread}
        if all(isinstance(score, bool) for score in known):
            return asdict(rate(sum(map(bool, known)), len(known), unread))
        return _mean(known) | {"unread": unread}


def _mean(values: Sequence[float]) -> dict[str, Any]:
    from scipy.stats import sem, t

    n, mean = len(values), sum(values) / len(values)
    half = float(t.ppf(0.975, n - 1) * sem(values)) if n > 1 else None
    low, high = (None, None) if half is None else (mean - half, mean + half)
    return {"value": mean, "low": low, "high": high, "n": n}


METRICS = {
    "hrr": Metric("HRR", "lower"),
    "refusal_rate": Metric("Refusals", ""),
    "incoherent_rate": Metric("Incoherent", "lower"),
    "hrr_true": Metric("True HRR", "lower"),
    "judge_agreement": Metric("Judge's agreement", "higher"),
    "over_refusal": Metric("Over-refusal", "lower"),
    "accuracy": Metric("Task accuracy", "higher"),
}
"""All that is summed up of answers, by the name of the score; in tables it is in %."""
