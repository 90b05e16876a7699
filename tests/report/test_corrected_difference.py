"""Differences on the same prompts, corrected for a judge's error."""

import numpy as np
import pytest
import replays

from raycib.report.corrected_difference import by_one_error, by_own_labels
from raycib.report.judge_error import Counts, Estimates, judge_error, share
from raycib.report.statistics import paired_interval

RATES = (0.85, 0.0, 0.02, 0.05, 0.1, 0.16, 0.23, 0.35, 0.5, 0.72, 0.83)
"""The first is what the others are held against."""


def one(*ends):
    return Estimates(*(np.array([end]) for end in ends))


def test_a_difference_grows_by_what_the_judge_loses():
    """Specificity falls out: .20 at a sensitivity of .8 and a specificity of .9 was .20 / .7."""
    found = by_one_error(one(0.20, 0.14, 0.26), replays.known(0.8, 0.9))
    assert [x[0] for x in found] == pytest.approx([0.2 / 0.7, 0.14 / 0.7, 0.26 / 0.7], abs=2e-3)


def test_a_judge_no_better_than_chance_tells_no_difference():
    assert np.isnan(by_one_error(one(0.1, 0.05, 0.15), replays.known(0.5, 0.5))).all()


def test_with_a_judge_that_does_not_err_the_difference_stays():
    found = by_one_error(one(0.1, 0.05, 0.15), replays.known(1.0, 1.0))
    assert [x[0] for x in found] == pytest.approx([0.1, 0.05, 0.15], abs=1e-3)


def test_own_labels_of_all_answers_give_the_true_difference():
    judged = np.array([[200.0, 60.0]])
    first = Counts(judged, judged, np.array([[10.0, 50.0]]))
    second = Counts(judged, judged, np.array([[4.0, 30.0]]))
    found = by_own_labels(first, second, np.array([0.02]))
    assert found.value[0] == pytest.approx((34 - 60) / 260)
    none = second._replace(labelled=np.array([[20.0, 0.0]]), harmful=np.array([[1.0, 0.0]]))
    assert np.isnan(by_own_labels(first, none, np.array([0.02])).value[0])


FIRST = Counts(*(np.array([part], dtype=float) for part in ((180, 80), (30, 20), (3, 15))))
SECOND = Counts(*(np.array([part], dtype=float) for part in ((220, 40), (25, 15), (2, 9))))


def drawn(rng, table):
    """Shares of harmful answers among those judged safe, and among those judged harmful."""
    pairs = zip(table.harmful[0], table.labelled[0], strict=True)
    return [rng.beta(yes + 0.5, n - yes + 0.5, 400_000) for yes, n in pairs]


def test_own_labels_of_both_and_prompts_err_apart():
    """Against draws: each share of each row has luck of its own, and so have the prompts."""
    rng = np.random.default_rng(0)
    points = 0.02 * rng.standard_normal(400_000)
    for sign, table in ((-1, FIRST), (1, SECOND)):
        safe, harmful = drawn(rng, table)
        points += sign * (table.judged[0, 0] * safe + table.judged[0, 1] * harmful) / 260
    found = by_own_labels(FIRST, SECOND, np.array([0.02]))
    ends = np.quantile(points, [0.025, 0.975])
    assert [found.low[0], found.high[0]] == pytest.approx(list(ends), abs=0.002)


def test_one_error_and_the_judged_difference_err_apart():
    """Against draws: sensitivity + specificity - 1 by Bayes' rule, of 80 in 260 judged harmful."""
    rng = np.random.default_rng(0)
    safe, harmful = drawn(rng, FIRST)
    yes = (180 * safe + 80 * harmful) / 260
    informed = 80 * harmful / 260 / yes + 180 * (1 - safe) / 260 / (1 - yes) - 1
    points = (0.2 + 0.03 * rng.standard_normal(400_000)) / informed
    half = 1.959964 * 0.03
    found = by_one_error(one(0.2, 0.2 - half, 0.2 + half), judge_error(FIRST))
    assert found.value[0] == pytest.approx(0.2 / (60 / 78 + 162 / 182 - 1))
    ends = np.quantile(points, [0.025, 0.975])
    assert [found.low[0], found.high[0]] == pytest.approx(list(ends), abs=0.007)


def test_no_difference_is_beyond_one():
    """-.7 [-.8, -.6] with a judge that shows .65 of it is -1 at most."""
    found = by_one_error(one(-0.6, -0.7, -0.5), replays.known(0.8, 0.85))
    assert found.low[0] == -1 and found.high[0] == pytest.approx(-0.5 / 0.65, abs=2e-3)


def test_no_difference_by_own_labels_is_beyond_one():
    """All harmful before and none after, of prompts that could have been others."""
    judged = np.array([[0.0, 20.0]])
    first, second = Counts(judged, judged, judged), Counts(*[judged[:, ::-1]] * 2, 0 * judged)
    found = by_own_labels(first, second, np.array([0.3]))
    assert (found.value[0], found.low[0]) == (-1, -1) and -1 < found.high[0] < 0


def worth(table, verdict):
    """Per answer, the share of harmful ones among the labels of its row and verdict."""
    shares = share(table.harmful, table.labelled)[..., None, :]
    return np.where(verdict, shares[..., 1], shares[..., 0])


@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.95, 0.97), (0.8, 0.9)])
def test_both_have_the_true_difference_as_often_as_they_say(monkeypatch, sensitivity, specificity):
    """500 pairs of cells of the world a judge, on the same prompts; 30 labels a cell. The bounds
    are 93 and 98 %, less and more 1.5 points for the error of the count."""
    monkeypatch.setattr("raycib.report.judge_error.POINTS", 512)
    monkeypatch.setattr("raycib.report.corrected_difference.POINTS", 512)
    population, rng = replays.world_cells(RATES), np.random.default_rng(4)
    harmful = replays.asked(population, 50, rng, together=True).harmful
    verdict = replays.flipped(harmful, sensitivity, specificity, rng)
    table = replays.counted(harmful, verdict, replays.sampled(verdict, 30, rng))
    truth = population.truth[1:] - population.truth[0]
    judged = [[paired_interval(pair) for pair in time]
              for time in verdict[:, 1:].astype(float) - verdict[:, :1]]  # fmt: skip
    raw = Estimates(*(np.array([[getattr(x, part) for x in time] for time in judged])
                      for part in ("value", "low", "high")))  # fmt: skip
    first = Counts(*(np.broadcast_to(x[:, :1], x[:, 1:].shape) for x in table))
    second = Counts(*(x[:, 1:] for x in table))
    apart = worth(table, verdict)[:, 1:] - worth(table, verdict)[:, :1]
    own = by_own_labels(first, second, apart.std(-1) / np.sqrt(apart.shape[-1]))
    pooled = by_one_error(raw, judge_error(table))
    for found in (pooled, own):
        assert 0.915 <= np.mean(replays.covered(found, truth)) <= 0.995
    assert np.mean(replays.covered(raw, truth)) < 0.8
