"""Cells replayed many times at once: true answers, a judge that errs, a drawn sample of labels."""

from typing import NamedTuple

import numpy as np

from raycib.report.judge_error import Counts, Estimates

FLOOR = 2
"""Labels of each verdict of a row, where it occurs so often."""


class Replays(NamedTuple):
    """Counts of all times, (times, rows, 2), and the rates that are true of the rows."""

    counts: Counts
    truth: np.ndarray


def drawn(
    rates: np.ndarray,
    sensitivity: float | np.ndarray,
    specificity: float | np.ndarray,
    labels: int,
    times: int,
    seed: int,
    prompts: int = 260,
) -> Replays:
    """Answers of rows that are harmful at ``rates``, read by a judge that errs at random."""
    rng = np.random.default_rng(seed)
    harmful = rng.random((times, len(rates), prompts)) < rates[:, None]
    return judged(harmful, sensitivity, specificity, rates, labels, rng)


def judged(
    harmful: np.ndarray,
    sensitivity: float | np.ndarray,
    specificity: float | np.ndarray,
    rates: np.ndarray,
    labels: int,
    rng: np.random.Generator,
) -> Replays:
    """The same of answers (times, rows, prompts) that are given."""
    luck = rng.random(harmful.shape)
    right = [np.broadcast_to(np.reshape(x, (-1, 1)), harmful.shape[1:]) for x in
             (sensitivity, specificity)]  # fmt: skip
    verdict = np.where(harmful, luck < right[0], luck >= right[1])
    return Replays(counted(harmful, verdict, sampled(verdict, labels, rng)), rates)


def sampled(verdict: np.ndarray, labels: int, rng: np.random.Generator) -> np.ndarray:
    """Which answers are labelled: ``labels`` a row, of both verdicts in proportion, but at least
    ``FLOOR`` of each that occurs."""
    asked, positive = verdict.shape[-1], verdict.sum(-1)
    some = np.round(labels * positive / asked).astype(int)
    of_harmful = np.maximum(some, np.minimum(FLOOR, positive))
    of_safe = np.maximum(labels - of_harmful, np.minimum(FLOOR, asked - positive))
    place = rng.random(verdict.shape)
    chosen = np.zeros(verdict.shape, dtype=bool)
    for said, wanted in ((verdict, of_harmful), (~verdict, of_safe)):
        rank = np.where(said, place, 2).argsort(-1).argsort(-1)
        chosen |= said & (rank < wanted[..., None])
    return chosen


def counted(harmful: np.ndarray, verdict: np.ndarray, labelled: np.ndarray) -> Counts:
    """Counts of answers (..., prompts); a single row becomes (1, 2)."""

    def by_verdict(what: np.ndarray) -> np.ndarray:
        found = np.stack([(what & ~verdict).sum(-1), (what & verdict).sum(-1)], -1)
        return np.atleast_2d(found.astype(float))

    return Counts(
        by_verdict(np.ones_like(verdict)), by_verdict(labelled), by_verdict(labelled & harmful)
    )


def covered(found: Estimates, truth: np.ndarray) -> np.ndarray:
    """Of the intervals that there are, whether each has the truth in it."""
    there = np.isfinite(found.value)
    return ((found.low <= truth) & (truth <= found.high))[there]
