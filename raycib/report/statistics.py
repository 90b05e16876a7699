"""Rates, means, correlations and comparisons, each with the count it rests on.

scipy does the arithmetic. Rates are in [0, 1]; intervals are 95 % unless said otherwise.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Any, Literal

import numpy as np
from scipy import stats

from raycib.metrics import wilson_ends

MAX_EXACT = 8
"""Largest n whose n! orders are all tried (8! = 40,320)."""

ROUNDING = 1e-6
"""Share of the largest number by which others may differ from it through rounding alone: float32,
in which losses and representations are computed, errs by 6e-8, and sums of it by some times that.
What a method does is larger: one answer of 20,000 is a rate of 5e-5."""
NOTHING = 1e-12
"""Below this a number is 0: float64 leaves so much, and less, of a difference of equal numbers of
order one (0.1 + 0.2 - 0.3 is 5.6e-17)."""

Kind = Literal["pearson", "spearman"]


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval and the count behind it."""

    value: float
    low: float
    high: float
    n: int
    alike: bool = False
    """Whether the values differ by less than one step, which was taken for their spread."""


@dataclass(frozen=True)
class Spread:
    """A mean over seeds with its sample standard deviation, which is nan for fewer than two."""

    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class Correlation:
    """How far two columns move together, with everything needed to doubt it.

    ``p_exact`` is two-sided: the share of all n! pairings whose \\|r\\| is at least the observed
    one, which at n = 4 cannot be less than 1/24 = .0417 (2/24 where the mirrored order ties, as
    ranks do). ``p_t`` is the usual two-sided value that assumes normal data. ``low`` and ``high``
    are Fisher's 95 % interval. What cannot be computed is None, and ``note`` says why.
    """

    kind: Kind
    r: float | None
    n: int
    p_exact: float | None = None
    p_t: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""


def tolerance(values: Iterable[float], scale: float = 0.0) -> float:
    """By how much the finite ``values`` may differ through rounding alone, in their unit.

    ``scale`` is the size of the numbers that they were made of, where that is the larger one:
    rounding leaves more of a difference of large numbers.
    """
    sizes = np.abs(np.asarray(list(values), dtype=float))
    return max(ROUNDING * max(float(sizes.max(initial=0.0)), scale), NOTHING)


def constant(values: Iterable[float], scale: float = 0.0) -> bool:
    """Whether the finite ``values`` are one number but for rounding, which is no variance."""
    found = np.asarray(list(values), dtype=float)
    return not len(found) or bool(np.ptp(found) <= tolerance(found, scale))


def less(one: float, other: float) -> bool:
    """Whether ``one`` is below ``other`` by more than rounding; False where one of them is nan."""
    return other - one > tolerance((one, other)) if math.isfinite(other - one) else one < other


def wilson(share: float, n: int) -> Interval:
    """Wilson's 95 % interval around a ``share`` of ``n`` that need not be a whole number of them.

    For a mean over seeds that asked the same ``n`` prompts: those answers are not independent, so
    n is the prompts, not prompts times seeds.
    """
    if n <= 0 or not -NOTHING <= share <= 1 + NOTHING:
        raise ValueError(f"{share} of {n} is not a share; a rate needs 0 <= share <= 1 and n >= 1")
    share = min(max(share, 0.0), 1.0)  # a mean of rates may leave the range by rounding
    return Interval(share, *wilson_ends(share * n, n), n)


def clopper_pearson(share: float, n: int, error: float) -> tuple[float, float]:
    """Clopper and Pearson's exact ends, each wrong with at most the chance `error`, around a share
    of `n`, which for a mean over seeds need not be a whole number of them."""
    hits = share * n
    low = float(stats.beta.ppf(error, hits, n - hits + 1)) if hits > 0 else 0.0
    high = float(stats.beta.ppf(1 - error, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def wilson_over_seeds(rates: Iterable[float], counts: Iterable[float]) -> Interval | None:
    """The mean of the rates that seeds have, with Wilson's 95 % interval for the fewest prompts
    behind one of them; None where no seed has a rate."""
    pairs = np.asarray(list(zip(rates, counts, strict=True)), dtype=float).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1) & (pairs[:, 1] > 0)]
    return wilson(float(pairs[:, 0].mean()), int(pairs[:, 1].min())) if len(pairs) else None


def mean_std(values: Iterable[float], scale: float = 0.0) -> Spread:
    """Mean and sample standard deviation (ddof = 1) of the finite ``values``.

    Values that differ by rounding alone have no spread, and a mean that is rounding is 0; see
    ``tolerance`` for ``scale``.
    """
    kept = np.asarray([v for v in values if v is not None and math.isfinite(v)], dtype=float)
    if not len(kept):
        return Spread(math.nan, math.nan, 0)
    std, mean = math.nan, float(kept.mean())
    if len(kept) > 1:
        std = 0.0 if constant(kept, scale) else float(kept.std(ddof=1))
    return Spread(0.0 if abs(mean) <= tolerance((), scale) else mean, std, len(kept))


def finite_mean(values: Iterable[float]) -> float:
    """The mean of the finite ``values``, as it is; nan where there are none."""
    found = np.asarray(values if isinstance(values, np.ndarray) else list(values), dtype=float)
    known = found[np.isfinite(found)]
    return float(known.mean()) if len(known) else math.nan


def known(value: float) -> float | None:
    """A finite number, for JSON; None for what is none."""
    return float(value) if math.isfinite(value) else None


def t_interval(values: Iterable[float], scale: float = 0.0, step: float = 0.0) -> Interval:
    """The mean of the finite ``values`` with Student's 95 % interval; nan ends below two values.

    ``step`` is the least by which values can differ, as a count's do by one: their standard
    deviation is taken to be no less. Else a few counts that are equal by chance would leave an
    interval without width. Equal values of one step lie above 0 from 7 of them on, by the exact
    sign test from 6. Of numbers without steps equal ones have both ends at their mean. See
    ``tolerance`` for ``scale``.
    """
    found = mean_std(values, scale=scale)
    half = math.nan
    if found.n > 1:
        spread = max(found.std, step)
        half = float(stats.t.ppf(0.975, found.n - 1)) * spread / math.sqrt(found.n)
    ends = found.mean - half, found.mean + half
    return Interval(found.mean, *ends, found.n, alike=found.std < step)


def pearson(x: Iterable[float], y: Iterable[float]) -> Correlation:
    """Pearson's r of the pairs in which both numbers are finite."""
    return _correlation(x, y, "pearson")


def spearman(x: Iterable[float], y: Iterable[float]) -> Correlation:
    """Spearman's rho (Pearson's r of mean ranks) of the pairs in which both are finite."""
    return _correlation(x, y, "spearman")


def paired_interval(differences: Sequence[float]) -> Interval:
    """The mean of differences in [-1, 1], one a prompt, with a 95 % interval: Agresti and Min's
    (2005), which is Wald's after adding half a prompt to each of the four kinds of pairs, and so
    stays sensible where nothing flipped. nan where there is no pair."""
    found = np.asarray(differences, dtype=float)
    if not len(found):
        return Interval(math.nan, math.nan, math.nan, 0)
    n = len(found) + 2
    centre = float(found.sum()) / n
    variance = (float((found**2).sum()) + 1) / n - centre**2
    half = float(stats.norm.ppf(0.975)) * math.sqrt(variance / n)
    low, high = max(centre - half, -1.0), min(centre + half, 1.0)
    return Interval(float(found.mean()), low, high, len(found))


@cache
def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p that ``b`` and ``c``, the two kinds of flips, are equally likely.

    Pairs that agree say nothing about a difference and are not needed; without flips p = 1.
    """
    return float(stats.binomtest(b, b + c).pvalue) if b + c else 1.0


def sign_flip_p(differences: Iterable[int]) -> float:
    """Exact two-sided p of a sum of whole-numbered differences whose signs are exchangeable.

    The share of all 2^n choices of signs whose sum is at least as far from 0 as the observed one,
    by convolving the distributions of the sums of equal differences. With differences of -1, 0
    and 1 this is McNemar's exact test; without any but 0, p = 1.
    """
    found = [int(d) for d in differences if d]
    sums = np.ones(1)  # chances of the sums from -reach to reach
    for size, count in sorted(Counter(map(abs, found)).items()):
        signs = np.zeros(2 * size * count + 1)
        signs[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        sums = np.convolve(sums, signs)
    reach = len(sums) // 2
    return min(float(sums[np.abs(np.arange(-reach, reach + 1)) >= abs(sum(found))].sum()), 1.0)


def holm(ps: Sequence[float]) -> list[float]:
    """``ps`` adjusted by Holm: rejecting those below 5 % errs once or more in 5 % of families."""
    adjusted, worst = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = worst
    return adjusted


def front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of the points that none beats: none has both coordinates at most as large and one
    smaller; in order of the first."""
    kept: list[tuple[float, float]] = []
    for x, y in sorted(set(points)):
        if not kept or y < kept[-1][1]:
            kept.append((x, y))
    return kept


def smallest_difference(n: int, rate: float) -> float:
    """How far above ``rate``, at most 1/2, another one is that two groups of ``n`` unpaired answers
    would tell from it at the 5 % level with a power of 80 %; inf where even 1 is too near.

    Cohen's arcsine effect size h = (z_.975 + z_.8) * sqrt(2 / n). Paired answers reveal smaller
    differences.
    """
    h = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * math.sqrt(2 / n)
    angle = math.asin(math.sqrt(rate)) + h / 2
    return math.sin(angle) ** 2 - rate if angle <= math.pi / 2 else math.inf


def _correlation(x: Iterable[float], y: Iterable[float], kind: Kind) -> Correlation:
    pairs = np.asarray(list(zip(x, y, strict=True)), dtype=float).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    n = len(pairs)
    if n < 3:
        return Correlation(kind, None, n, note=f"too few points: {n}")
    a, b = pairs.T if kind == "pearson" else map(ranks, pairs.T)
    if constant(a) or constant(b):
        return Correlation(kind, None, n, note="one of the two does not vary")
    found: Any = stats.pearsonr(a, b)
    r = float(np.clip(found.statistic, -1, 1))
    exact = _exact_p(a, b, r) if n <= MAX_EXACT else None
    notes = [] if exact is not None else [f"n > {MAX_EXACT}: no exact p"]
    low = high = None
    p_t: float | None = float(found.pvalue)
    if abs(r) > 1 - 1e-12:
        notes.append("perfect order: no interval, no t")
        p_t = None  # the t statistic is infinite, and its p of 0 is no evidence
    elif n == 3:
        notes.append("n = 3: no interval")
    else:
        # Bonett and Wright (2000): ranks vary more than Fisher's 1 / (n - 3) says.
        widening = 1 + r * r / 2 if kind == "spearman" else 1.0
        half = float(stats.norm.ppf(0.975)) * math.sqrt(widening / (n - 3))
        low, high = math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)
    return Correlation(kind, r, n, exact, p_t, low, high, "; ".join(notes))


def ranks(values: np.ndarray) -> np.ndarray:
    """Mean ranks; neighbours that rounding alone tells apart are tied."""
    order = np.argsort(values)
    steps = np.diff(values[order]) > tolerance(values)
    places = np.empty(len(values), dtype=int)
    places[order] = np.concatenate([[0], np.cumsum(steps)])
    return stats.rankdata(places)


def _exact_p(a: np.ndarray, b: np.ndarray, r: float) -> float:
    """Share of all orders of ``b`` whose correlation with ``a`` is at least as far from zero."""
    a, b = a - a.mean(), b - b.mean()
    orders = np.asarray(list(permutations(range(len(b)))))
    each = b[orders] @ a / (np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.mean(np.abs(each) >= abs(r) - 1e-9))
