"""The difference of two rows on the same prompts, corrected for the judge's error."""

import numpy as np
from scipy.stats import norm

from raycib.report.judge_error import (
    LEVEL,
    POINTS,
    Counts,
    Estimates,
    JudgeError,
    ends,
    grid,
    posterior,
    share,
)


def by_one_error(difference: Estimates, error: JudgeError) -> Estimates:
    """Differences of judged rates, with their intervals (..., rows), by one error for all rows.

    Specificity falls out: each is divided by sensitivity + specificity - 1. So signs stay, and so
    does a test of no difference. nan where the judge is no better than chance.
    """
    spread = (difference.high - difference.low) / (2 * norm.ppf(LEVEL[1]))
    middle = (difference.high + difference.low) / 2
    points = middle[..., None] + spread[..., None] * norm.ppf(grid(POINTS)[:, 0])
    informed = error.informed.value[..., None]
    each = (error.sensitivities + error.specificities - 1)[..., None, :]
    found = ends(
        difference.value / np.maximum(informed, 1e-12), points / np.maximum(each, 1e-12), -1.0
    )
    usable = error.better_than_chance[..., None]
    return Estimates(*(np.where(usable, part, np.nan) for part in found))


def by_own_labels(first: Counts, second: Counts, spread: np.ndarray) -> Estimates:
    """``second``'s rates less ``first``'s, each by its own labels, (..., rows).

    Labels of the two are drawn apart, so they err apart. Prompts are the same: ``spread`` is the
    standard error of the mean over prompts of the difference of what both rows' verdicts are worth,
    the share of harmful answers among the labels of that verdict. nan where a verdict that occurs
    in either has no label.
    """
    points = spread[..., None] * norm.ppf(grid(POINTS)[:, 0])
    value = np.zeros_like(spread)
    for sign, counts, axis in ((-1, first, 1), (1, second, 3)):
        weights = np.stack([1 - counts.rate, counts.rate], -1)
        value = value + sign * (weights * share(counts.harmful, counts.labelled)).sum(-1)
        for verdict in (0, 1):
            each = posterior(
                counts.harmful[..., verdict], counts.labelled[..., verdict], axis + verdict
            )
            points = points + sign * weights[..., verdict, None] * each
    usable = first.represented & second.represented
    return Estimates(*(np.where(usable, part, np.nan) for part in ends(value, points, -1.0)))
