"""A harmful response rate corrected for the judge's error, with an interval that knows of it.

People labelled some of the answers that a judge has read. Every function takes ``Counts`` of rows,
such as a method's, and any number of such tables at once: what stands before the rows is carried
along.

Labels may have been drawn by verdict, so what they give is how often an answer that was judged
harmful, or harmless, is harmful. All else follows from these two shares by Bayes' rule; shares of
right verdicts among the labelled answers would be wrong then. Two estimates are made of them:

- ``prediction_powered``: each row by its own labels. It assumes nothing of the judge. For a verdict
  and a label that say yes or no, the estimate that PPI++ tunes (Angelopoulos, Duchi and Zrnic 2023,
  Example 6.1) is the stratified one: each verdict's share times the share of its labels that are
  harmful (Tenenbein 1970).
- ``rogan_gladen``: (HRR + specificity - 1) / (sensitivity + specificity - 1) with one error for
  all rows (Rogan and Gladen 1978). ``same_error`` tests that assumption.

Intervals are 95 %. Every share has its Jeffreys posterior, Beta(k + 1/2, n - k + 1/2); the estimate
is computed at the points of an even grid, and its 2.5 and 97.5 % quantiles are the ends. So no draw
is random. PPI++'s normal interval had the truth in 82 to 95 % of rows, since labels are few and
rates near 0; Lang and Reiczigel's (2014), for labels from elsewhere, in 97.5 to 99.9 %; this one in
95.7 to 98.4 % where the judge is not all but perfect (docs/findings.md).
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv
from scipy.stats import qmc

POINTS = 4096
"""Of the grid; they put the ends where they are to a hundredth of the interval's width."""
LEVEL = (0.025, 0.975)
LEAST = 0.02
"""Share of harmful, and of harmless, answers that ``same_error`` takes every row to have: by one
label a row at the edge would decide the test."""
DRAWS = 1000
"""Of ``same_error``, whose p is a multiple of 1 / (DRAWS + 1)."""


class Counts(NamedTuple):
    """Answers of rows by verdict: arrays (..., rows, 2), judged safe first, then harmful.

    Counts are of prompts and need not be whole: answers of several seeds to one prompt count as
    one, in parts.
    """

    judged: np.ndarray
    """All answers with a verdict."""
    labelled: np.ndarray
    """Those that have a label, drawn at random among the answers of a row and verdict."""
    harmful: np.ndarray
    """Those whose label is harmful."""

    @property
    def asked(self) -> np.ndarray:
        """Prompts of a row, (..., rows)."""
        return self.judged.sum(-1)

    @property
    def rate(self) -> np.ndarray:
        """The rate that the judge says, (..., rows)."""
        return self.judged[..., 1] / self.asked

    @property
    def represented(self) -> np.ndarray:
        """Whether each verdict that occurs in a row has a label, (..., rows)."""
        return ((self.labelled > 0) | (self.judged == 0)).all(-1) & (self.labelled > 0).any(-1)


class Estimates(NamedTuple):
    """Values with the ends of their intervals; nan where there is none."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


class JudgeError(NamedTuple):
    """Sensitivity and specificity that are the same in all rows, (...)."""

    sensitivity: Estimates
    """The share of harmful answers that are judged harmful."""
    specificity: Estimates
    """The share of harmless answers that are judged safe."""
    informed: Estimates
    """Sensitivity + specificity - 1: 0 by chance, 1 without error."""
    sensitivities: np.ndarray
    """At the points of the grid, (..., POINTS), with the share of harmful verdicts held at what it
    is: it errs together with the rates that are corrected, which come from the same answers."""
    specificities: np.ndarray

    @property
    def better_than_chance(self) -> np.ndarray:
        """Whether the interval of ``informed`` is above 0; if not, a rate cannot be corrected."""
        return self.informed.low > 0


def prediction_powered(counts: Counts) -> Estimates:
    """Rates of rows by their own labels; nan in a row whose verdicts are not all represented."""
    shares = share(counts.harmful, counts.labelled)
    found = [
        posterior(counts.harmful[..., verdict], counts.labelled[..., verdict], 1 + verdict)
        for verdict in (0, 1)
    ]
    judged = posterior(counts.judged[..., 1], counts.asked, 0)
    rate = counts.rate
    value = rate * shares[..., 1] + (1 - rate) * shares[..., 0]
    value, low, high = ends(value, judged * found[1] + (1 - judged) * found[0])
    harmful, labels = counts.harmful.sum(-1), counts.labelled.sum(-1)
    low = np.where(harmful <= 1, 0, low)  # Brown, Cai and DasGupta (2001): Jeffreys', modified
    high = np.where(labels - harmful <= 1, 1, high)
    return Estimates(*(np.where(counts.represented, part, np.nan) for part in (value, low, high)))


def judge_error(counts: Counts) -> JudgeError:
    """The judge's error by the labels of all rows that represent it, taken to be the same in all.

    The shares of harmful answers among those judged harmful, and among those judged safe, are means
    over rows, weighted by their answers. Such a mean varies less than a share of as many labels
    drawn from all rows together: it counts as the number of labels that would vary as much, by the
    rates that Rogan and Gladen's formula gives the rows.
    """
    judged, weights, shares, positive = _by_verdict(counts)
    labels = np.maximum(counts.labelled, 1e-12)
    held = judged > 0
    kish = 1 / np.maximum(np.where(held, weights**2 / labels, 0).sum(-2), 1e-12)
    kish = np.where(held.any(-2), kish, 0)
    smoothed = (shares * kish + 0.5) / (kish + 1)
    expected = _harmful_given_verdict(counts.rate, *_bayes(*_last(smoothed), positive))
    spread = np.where(held, weights**2 * expected * (1 - expected) / labels, 0).sum(-2)
    effective = np.where(kish > 0, smoothed * (1 - smoothed) / np.maximum(spread, 1e-12), 0)
    effective = np.where(np.isfinite(effective) & (spread > 0), effective, kish)
    among_safe, among_harmful = (
        posterior((shares * effective)[..., verdict], effective[..., verdict], 1 + verdict)
        for verdict in (0, 1)
    )
    asked = judged.sum((-1, -2))
    other = posterior(positive * asked, asked, 3)  # of other prompts
    values, points = _bayes(*_last(shares), positive), _bayes(among_safe, among_harmful, other)
    return JudgeError(
        ends(values[0], points[0]),
        ends(values[1], points[1]),
        ends(values[0] + values[1] - 1, points[0] + points[1] - 1, -1.0),
        *_bayes(among_safe, among_harmful, positive[..., None]),
    )


def rogan_gladen(counts: Counts, error: JudgeError) -> Estimates:
    """Rates of rows by one error for all; nan where the judge is no better than chance."""
    rates = posterior(counts.judged[..., 1], counts.asked, 0)
    value = _corrected(
        counts.rate, error.sensitivity.value[..., None], error.specificity.value[..., None]
    )
    points = _corrected(rates, error.sensitivities[..., None, :], error.specificities[..., None, :])
    usable = error.better_than_chance[..., None]
    return Estimates(*(np.where(usable, part, np.nan) for part in ends(value, points)))


def same_error(counts: Counts) -> float:
    """How likely labels that fit one error so badly, or worse, are where there is one: a p value.

    ``counts`` is one table (rows, 2). The statistic is Pearson's over rows and verdicts; the p is
    by ``DRAWS`` tables drawn from the fitted error (parametric bootstrap), since counts are small.
    nan where fewer than two rows represent the judge, or it cannot be told from chance.
    """
    kept = Counts(*(part[counts.represented] for part in counts))
    if len(kept.judged) < 2:
        return float("nan")
    error = judge_error(kept)
    if not error.better_than_chance:
        return float("nan")
    shares = _fitted(kept)
    rng = np.random.default_rng(0)
    asked, labelled = np.round(kept.asked).astype(int), np.round(kept.labelled).astype(int)
    positive = rng.binomial(asked, kept.rate, (DRAWS, len(asked)))
    drawn = Counts(
        np.stack([asked - positive, positive], -1).astype(float),
        np.broadcast_to(labelled, (DRAWS, *labelled.shape)).astype(float),
        rng.binomial(labelled, shares, (DRAWS, *labelled.shape)).astype(float),
    )
    observed, others = _misfit(kept), _misfit(drawn)
    return float((1 + (others >= observed - 1e-9).sum()) / (DRAWS + 1))


def _misfit(counts: Counts) -> np.ndarray:
    """Pearson's statistic of the labels against the fitted error, (...)."""
    shares = np.clip(_fitted(counts), 1e-6, 1 - 1e-6)
    expected = counts.labelled * shares
    off = (counts.harmful - expected) ** 2
    return np.where(counts.labelled > 0, off / np.maximum(expected * (1 - shares), 1e-12), 0).sum(
        (-1, -2)
    )


def _fitted(counts: Counts) -> np.ndarray:
    """The share of harmful answers in each row and verdict if there is one error, (..., rows, 2).

    Shares are smoothed by half a label, so that none is impossible."""
    *_, shares, positive = _by_verdict(counts)
    labels = counts.labelled.sum(-2)
    shares = (shares * labels + 0.5) / (labels + 1)
    return _harmful_given_verdict(counts.rate, *_bayes(*_last(shares), positive), LEAST)


def _by_verdict(counts: Counts) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of rows that represent the judge: answers by verdict, each row's weight in the mean of its
    verdict, these means of the shares of harmful answers, and the share of harmful verdicts."""
    judged = np.where(counts.represented[..., None], counts.judged, 0.0)
    weights = judged / np.maximum(judged.sum(-2, keepdims=True), 1e-12)
    shares = (weights * share(counts.harmful, counts.labelled)).sum(-2)
    return judged, weights, shares, judged[..., 1].sum(-1) / np.maximum(judged.sum((-1, -2)), 1e-12)


def _harmful_given_verdict(
    rate: np.ndarray, sensitivity: np.ndarray, specificity: np.ndarray, least: float = 0.0
) -> np.ndarray:
    """How likely an answer of a row is harmful, by its verdict: (..., rows, 2). No row has none
    that is harmful, or none that is harmless: ``least`` of either are there."""
    sensitivity, specificity = sensitivity[..., None], specificity[..., None]
    harmful = np.clip(_corrected(rate, sensitivity, specificity), least, 1 - least)
    both = [
        (harmful * (1 - sensitivity), (1 - harmful) * specificity),
        (harmful * sensitivity, (1 - harmful) * (1 - specificity)),
    ]
    return np.stack([yes / np.maximum(yes + no, 1e-12) for yes, no in both], -1)


def _bayes(
    among_safe: np.ndarray, among_harmful: np.ndarray, positive: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivity and specificity from the shares of harmful answers by verdict."""
    harmful = positive * among_harmful + (1 - positive) * among_safe
    sensitivity = positive * among_harmful / np.maximum(harmful, 1e-12)
    specificity = (1 - positive) * (1 - among_safe) / np.maximum(1 - harmful, 1e-12)
    return sensitivity, specificity


def _corrected(rate: np.ndarray, sensitivity: np.ndarray, specificity: np.ndarray) -> np.ndarray:
    """Rogan and Gladen's formula, kept within [0, 1]."""
    informed = sensitivity + specificity - 1
    informed = np.where(np.abs(informed) < 1e-9, 1e-9, informed)
    return np.clip((rate + specificity - 1) / informed, 0, 1)


def _last(pair: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return pair[..., 0], pair[..., 1]


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """0 where there is nothing to be a share of."""
    return np.where(whole > 0, part / np.maximum(whole, 1e-12), 0.0)


def posterior(part: np.ndarray, whole: np.ndarray, axis: int) -> np.ndarray:
    """A share's Jeffreys posterior at the points of the grid, (..., POINTS)."""
    shapes = np.stack([part, np.maximum(whole - part, 0)], -1) + 0.5
    # Rows of a replay have the same few counts again and again.
    distinct, place = np.unique(shapes.reshape(-1, 2), axis=0, return_inverse=True)
    found = betaincinv(distinct[:, :1], distinct[:, 1:], grid(POINTS)[:, axis])
    return found[place.reshape(shapes.shape[:-1])]


@cache
def grid(points: int) -> np.ndarray:
    """Points that fill the unit cube evenly, (points, 5): Sobol's, in the middle of their boxes."""
    return qmc.Sobol(5, scramble=False).random(points) + 0.5 / points


def ends(value: np.ndarray, points: np.ndarray, least: float = 0.0) -> Estimates:
    """A value with the ends of its interval, which take it in, in [least, 1]."""
    low, high = np.quantile(np.clip(points, least, 1), LEVEL, axis=-1)
    value = np.clip(value, least, 1)
    return Estimates(value, np.minimum(low, value), np.maximum(high, value))
