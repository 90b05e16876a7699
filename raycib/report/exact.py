"""Clopper and Pearson's exact interval of a share."""

from scipy import stats


def clopper_pearson(share: float, n: int, error: float) -> tuple[float, float]:
    """The ends, each wrong with at most the chance `error`, around a share of `n`, which for a mean
    over seeds need not be a whole number of them."""
    hits = share * n
    low = float(stats.beta.ppf(error, hits, n - hits + 1)) if hits > 0 else 0.0
    high = float(stats.beta.ppf(1 - error, hits + 1, n - hits)) if hits < n else 1.0
    return low, high
