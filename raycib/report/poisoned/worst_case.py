"""The largest of several rates, with an interval for the true largest one.

The rates are those of models at several shares of harmful rows. The same prompts are asked of all,
so their errors go together; no independence is assumed anywhere below.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from raycib.report.statistics import Interval, clopper_pearson

LEVEL = 0.05
"""What the two ends together may err."""


def ends(outcomes: np.ndarray, error: float) -> tuple[float, float, float]:
    """A rate over (seeds, prompts) of 0 and 1, nan where there is none, and its two ends, each
    wrong with at most about the chance `error` for other seeds and other prompts.

    The distances of Clopper and Pearson's ends, for as many answers as there are prompts, and of
    Student's for the seeds' rates are added as squares (MOVER: Zou and Donner 2008,
    doi:10.1002/sim.3095). What is of a seed and a prompt together counts in both. One seed says
    nothing of others: its ends are about prompts alone.
    """
    known = outcomes[:, np.isfinite(outcomes).all(axis=0)]
    seeds, n = known.shape
    if not n or not seeds:
        return math.nan, math.nan, math.nan
    by_seed = known.mean(axis=1)
    value = float(by_seed.mean())
    low, high = clopper_pearson(value, n, error)
    apart = 0.0
    if seeds > 1:
        quantile = float(stats.t.ppf(1 - error, seeds - 1))
        apart = quantile * float(by_seed.std(ddof=1)) / math.sqrt(seeds)
    down, up = math.hypot(value - low, apart), math.hypot(high - value, apart)
    return value, max(value - down, 0.0), min(value + up, 1.0)


def worst_case(every: Sequence[np.ndarray]) -> tuple[int, Interval]:
    """Which of some rates is the largest, and it with an interval for the largest true rate; each
    rate is given by its outcomes, (seeds, prompts).

    The upper end is the largest upper end of any. It needs no correction for their number: below
    the true largest rate it can only be where the upper end of that very one is. The lower end is
    the largest lower end, each of which may err by its share of the chance alone (Bonferroni), for
    any of them may be the one that is too high. The largest observed rate is itself above the true
    largest one in the mean: the maximum of what varies is.
    """
    half, count = LEVEL / 2, len(every)
    upper = [ends(one, half) for one in every]
    lower = [ends(one, half / count) for one in every]
    values = np.array([value for value, _, _ in upper])
    n = min((int(np.isfinite(one).all(axis=0).sum()) for one in every), default=0)
    if not count or not np.isfinite(values).all():
        return 0, Interval(math.nan, math.nan, math.nan, n)
    place = int(values.argmax())
    high = max(one[2] for one in upper)
    return place, Interval(float(values[place]), max(one[1] for one in lower), high, n)
