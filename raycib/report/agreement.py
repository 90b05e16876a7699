"""How far two judges agree on the same conversations, and on the order of methods."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from raycib.report.statistics import Interval, known, ranks
from raycib.results import Agreement, RowOrder


@dataclass(frozen=True)
class Reading:
    """What two judges say of one conversation: harmful or not, None where one could not be read."""

    prompt: Hashable
    first: bool | None
    other: bool | None


def agreement(readings: Sequence[Reading]) -> Agreement:
    """How far two judges agree on distinct conversations."""
    both = [one for one in readings if one.first is not None and one.other is not None]
    said = Counter((bool(one.first), bool(one.other)) for one in both)
    same = said[False, False] + said[True, True]
    kappa = cohens_kappa(both)
    return Agreement(
        n=len(both),
        both_safe=said[False, False],
        both_unsafe=said[True, True],
        only_first_unsafe=said[True, False],
        only_other_unsafe=said[False, True],
        first_unread=sum(one.first is None for one in readings),
        other_unread=sum(one.other is None for one in readings),
        agreement=same / len(both) if both else None,
        kappa=known(kappa.value),
        kappa_low=known(kappa.low),
        kappa_high=known(kappa.high),
    )


def cohens_kappa(readings: Sequence[Reading]) -> Interval:
    """Cohen's kappa (1960) of verdicts that were all read, with its 95 % interval; nan where it is
    not defined, and nan ends where nothing varies.

    The standard error is that of Fleiss, Cohen and Everitt (1969) where every prompt stands once.
    Answers to one prompt are alike, so what they say is summed by prompt first: the interval rests
    on prompts, as many as there are, and on Student's t. ``n`` counts conversations.
    """
    n = len(readings)
    nothing = Interval(math.nan, math.nan, math.nan, n)
    if not n:
        return nothing
    first = np.array([bool(one.first) for one in readings])
    other = np.array([bool(one.other) for one in readings])
    p, q = first.mean(), other.mean()
    observed, chance = float((first == other).mean()), float(p * q + (1 - p) * (1 - q))
    if chance == 1:
        return nothing
    value = (observed - chance) / (1 - chance)
    # Kappa's derivative by the share of conversations like each one (the delta method).
    expected = np.where(first, q, 1 - q) + np.where(other, p, 1 - p)
    moves = ((first == other) * (1 - chance) - (1 - observed) * expected) / (1 - chance) ** 2
    numbers = {prompt: k for k, prompt in enumerate(dict.fromkeys(o.prompt for o in readings))}
    sums = np.bincount([numbers[one.prompt] for one in readings], moves - moves.mean())
    prompts = len(sums)
    if prompts < 2 or not np.abs(sums).max() > 1e-12:
        return Interval(value, math.nan, math.nan, n)
    error = math.sqrt(prompts / (prompts - 1) * float((sums**2).sum())) / n
    half = float(stats.t.ppf(0.975, prompts - 1)) * error
    return Interval(value, max(value - half, -1.0), min(value + half, 1.0), n)


def order(first: Sequence[float], other: Sequence[float]) -> RowOrder:
    """The order of rows by two judges' rates; rows without one are left out."""
    both = np.array([(a, b) for a, b in zip(first, other, strict=True)
                     if math.isfinite(a) and math.isfinite(b)]).reshape(-1, 2)  # fmt: skip
    n = len(both)
    pairs = list(zip(ranks(both[:, 0]).tolist(), ranks(both[:, 1]).tolist(), strict=True))
    swapped = sum(
        (a - c) * (b - d) < 0 for k, (a, b) in enumerate(pairs) for c, d in pairs[k + 1 :]
    )
    tau = float(stats.kendalltau(*zip(*pairs, strict=True)).statistic) if n > 1 else math.nan
    return RowOrder(rows=n, tau=known(tau), swapped=swapped, pairs=n * (n - 1) // 2)
