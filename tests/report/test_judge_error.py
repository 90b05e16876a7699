"""Rates corrected for a judge's error, held against closed forms, published figures and counts of
how often the interval has the truth."""

import numpy as np
import pytest
import replays
from scipy import stats

from raycib.report.judge_error import (
    Counts,
    judge_error,
    prediction_powered,
    rogan_gladen,
    same_error,
)


def counts(*rows):
    """Counts of rows given as ((safe, labels, harmful), (harmful, labels, harmful))."""
    table = np.array(rows, dtype=float)
    return Counts(table[..., 0], table[..., 1], table[..., 2])


@pytest.mark.parametrize(
    ("positive", "tested", "sensitivity", "specificity", "value", "high"),
    [
        (23, 150, 0.96, 0.89, 5.1, 13),  # brucellosis: 5.1 (0 to 13) per 100, in epiR's manual
        (6, 151, 0.964, 0.927, 0.0, 1.3),  # Moujaber et al. 2008, there too: 0 (0 to 1.3)
    ],
)
def test_published_rates_at_a_known_error(positive, tested, sensitivity, specificity, value, high):
    """Ends there are Blaker's and Clopper and Pearson's: ours are at most .6 points narrower."""
    found = rogan_gladen(
        counts(((tested - positive, 0, 0), (positive, 0, 0))),
        replays.known(sensitivity, specificity),
    )
    assert 100 * found.value[0] == pytest.approx(value, abs=0.05)
    assert found.low[0] == 0
    assert high - 0.6 <= 100 * found.high[0] <= high + 0.05


def test_sensitivity_and_specificity_by_hand():
    """80 of 100 are judged harmful. 30 of 40 labels there are harmful, 1 of 10 among the others:
    harmful are .6 + .02, so sensitivity is .60 / .62 and specificity .18 / .38."""
    error = judge_error(counts(((20, 10, 1), (80, 40, 30))))
    assert error.sensitivity.value == pytest.approx(0.60 / 0.62)
    assert error.specificity.value == pytest.approx(0.18 / 0.38)


def test_labels_drawn_by_verdict_do_not_move_the_error():
    """Ten times the labels of harmful verdicts, in the same shares: naive shares among all labels
    would go from (.9, .95) to (.99, .67)."""
    even = judge_error(counts(((500, 100, 10), (500, 100, 90))))
    uneven = judge_error(counts(((500, 100, 10), (500, 400, 360))))
    assert even.sensitivity.value == pytest.approx(uneven.sensitivity.value)
    assert even.specificity.value == pytest.approx(uneven.specificity.value)


def test_one_row_has_the_same_estimate_both_ways():
    """With one row its own labels are all there are."""
    table = counts(((180, 60, 3), (80, 40, 30)))
    own, pooled = prediction_powered(table), rogan_gladen(table, judge_error(table))
    assert own.value == pytest.approx(pooled.value)
    assert own.value[0] == pytest.approx((180 * 3 / 60 + 80 * 30 / 40) / 260)


def test_the_stratified_estimate_is_ppi_plus_plus_with_its_tuned_lambda():
    """Angelopoulos et al. 2023: mean(Y - lam V) over n labels + lam mean(V) over N others, with lam
    = cov(Y, V) / ((1 + n/N) var(V)); moments over the labels."""
    rng = np.random.default_rng(0)
    harmful = rng.random(260) < 0.3
    verdict = np.where(harmful, rng.random(260) < 0.8, rng.random(260) < 0.1)
    y, v, others = harmful[:70].astype(float), verdict[:70].astype(float), verdict[70:]
    lam = np.cov(y, v, ddof=0)[0, 1] / v.var() / (1 + len(y) / len(others))
    theirs = (y - lam * v).mean() + lam * others.mean()
    assert theirs == pytest.approx(0.29040248, abs=1e-8)  # ppi-python 0.2.3 at this lambda
    ours = prediction_powered(replays.counted(harmful, verdict, np.arange(260) < 70))
    assert ours.value[0] == pytest.approx(theirs, abs=1e-12)


def test_all_labelled_is_the_truth_with_a_binomial_interval():
    """Jeffreys' interval of the true rate: between Wilson's and Clopper and Pearson's."""
    table = counts(((200, 200, 4), (60, 60, 51)))
    found = prediction_powered(table)
    ends = stats.beta.ppf([0.025, 0.975], 55.5, 260 - 55 + 0.5)
    assert found.value[0] == pytest.approx(55 / 260)
    assert [found.low[0], found.high[0]] == pytest.approx(list(ends), abs=0.008)


def test_the_grid_is_as_good_as_draws():
    """To two hundredths of the width: by own labels, by one error, and of that error, which
    is of other prompts; what a rate is corrected by has the rate of its own."""
    table = counts(((180, 60, 3), (80, 40, 30)))
    rng = np.random.default_rng(0)
    rate, other = rng.beta(80.5, 180.5, (2, 400_000))
    harmful, safe = rng.beta(30.5, 10.5, 400_000), rng.beta(3.5, 57.5, 400_000)

    def bayes(rate):
        yes = rate * harmful + (1 - rate) * safe
        return rate * harmful / yes, (1 - rate) * (1 - safe) / (1 - yes)

    (sensitivity, specificity), error = bayes(80 / 260), judge_error(table)
    by_one = (rate + specificity - 1) / (sensitivity + specificity - 1)
    for found, points in (
        (prediction_powered(table), rate * harmful + (1 - rate) * safe),
        (rogan_gladen(table, error), np.clip(by_one, 0, 1)),
        (error.sensitivity, bayes(other)[0]),
        (error.specificity, bayes(other)[1]),
        (error.informed, sum(bayes(other)) - 1),
    ):
        ends = np.quantile(points, [0.025, 0.975])
        seen = [np.ravel(end)[0] for end in found[1:]]
        assert seen == pytest.approx(list(ends), abs=0.02 * np.ptp(ends))


def test_of_a_judge_that_erred_in_no_label_the_interval_ends_at_one():
    """A Jeffreys interval ends below: it takes the value in."""
    error = judge_error(counts(((20, 10, 0), (80, 40, 40))))
    for found in error[:3]:
        assert float(found.value) == float(found.high) == 1 > float(found.low)


def test_two_like_rows_know_of_the_judge_what_one_of_both_knows():
    half, whole = ((60, 12, 3), (40, 20, 15)), ((120, 24, 6), (80, 40, 30))
    for one, other in zip(judge_error(counts(half, half)), judge_error(counts(whole)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_rows_apart_tell_more_than_as_many_labels_of_all_rows_together():
    """Of a verdict, rows of rates .3 and .7 hold two shares of harmful answers: a mean of both
    varies less than a share of the same labels drawn from their union."""
    low, high = ((70, 28, 1), (30, 12, 9)), ((30, 12, 3), (70, 28, 27))
    apart, one = judge_error(counts(low, high)), judge_error(counts(((100, 40, 4), (100, 40, 36))))
    for name in ("sensitivity", "specificity"):
        found, whole = getattr(apart, name), getattr(one, name)
        assert found.value == pytest.approx(whole.value), name
        assert found.high - found.low < 0.97 * (whole.high - whole.low), name


def test_fewer_prompts_leave_more_open_of_the_judge_at_the_same_labels():
    """Sensitivity is of harmful answers, whose share among all is known from the prompts alone."""
    few, many = (judge_error(counts(((20 * n, 10, 1), (80 * n, 40, 30)))) for n in (1, 100))
    assert few.sensitivity.value == pytest.approx(many.sensitivity.value)
    widths = [found.sensitivity.high - found.sensitivity.low for found in (few, many)]
    assert widths[0] > 1.01 * widths[1]


def test_one_label_of_the_other_kind_leaves_the_end_where_it_is():
    """As Jeffreys' interval is mended by Brown, Cai and DasGupta (2001): of x = 1 the low end is 0,
    and of x = n - 1 the high end is 1."""
    few = prediction_powered(counts(((90, 20, 0), (10, 5, 1))))
    many = prediction_powered(counts(((10, 5, 4), (90, 20, 20))))
    assert (few.low[0], many.high[0]) == (0, 1) and few.high[0] < 1 and many.low[0] > 0
    two = prediction_powered(counts(((90, 20, 0), (10, 5, 2)), ((10, 5, 3), (90, 20, 20))))
    assert two.low[0] > 0 and two.high[1] < 1, "of two it is Jeffreys' own"


def test_a_judge_no_better_than_chance_corrects_nothing():
    table = counts(((130, 40, 12), (130, 40, 13)), ((100, 30, 9), (160, 50, 16)))
    error = judge_error(table)
    assert not error.better_than_chance
    assert np.isnan(rogan_gladen(table, error)).all()
    assert np.isfinite(prediction_powered(table)).all()  # its labels say what it does not


def test_a_judge_that_is_always_wrong_is_not_turned_round():
    assert not judge_error(counts(((130, 40, 39), (130, 40, 1)))).better_than_chance


def test_a_row_with_an_unlabelled_verdict_has_no_estimate_of_its_own():
    table = counts(((250, 20, 0), (10, 0, 0)), ((260, 20, 1), (0, 0, 0)), ((250, 1, 0), (10, 1, 1)))
    found = prediction_powered(table)
    assert np.isnan(found.value[0])
    assert found.value[1:] == pytest.approx([1 / 20, 10 / 260])


def test_the_p_of_one_error_is_never_0_and_takes_two_rows():
    """None of 1,000 draws fits as badly: 1 / 1,001."""
    right, wrong = ((50, 40, 0), (50, 40, 40)), ((50, 40, 40), (50, 40, 0))
    assert same_error(counts(right, right, right, wrong)) == pytest.approx(1 / 1001)
    assert np.isnan(same_error(counts(right)))


RATES = (0.0, 0.0, 0.01, 0.02, 0.05, 0.1, 0.16, 0.23, 0.35, 0.5, 0.72, 0.85)
"""Of rows as a sweep of the world has them: two of the safest have none that is harmful."""


@pytest.fixture(scope="module")
def population():
    return replays.world_cells(RATES)


@pytest.fixture
def coarse(monkeypatch):
    """Ends to a twentieth of an interval's width, in an eighth of the time."""
    monkeypatch.setattr("raycib.report.judge_error.POINTS", 512)


def test_one_error_is_told_from_several(population):
    """20 labels a row: at one error p is below .05 as seldom as it should be, and with three rows
    of twelve in which specificity is .6 in place of .95 nearly always."""
    worse = np.where(np.isin(np.arange(12), (3, 5, 7)), 0.6, 0.95)
    for specificity, low, high in ((0.95, 0.0, 0.15), (worse, 0.9, 1.0)):
        rng = np.random.default_rng(3)
        harmful = replays.asked(population, 30, rng).harmful
        verdict = replays.flipped(harmful, 0.9, specificity, rng)
        table = replays.counted(harmful, verdict, replays.sampled(verdict, 20, rng))
        ps = [same_error(Counts(*(part[i] for part in table))) for i in range(30)]
        assert low <= np.mean(np.array(ps) < 0.05) <= high


@pytest.mark.parametrize(
    ("sensitivity", "specificity"), [(0.98, 0.99), (0.9, 0.9), (0.75, 0.95), (0.9, 0.75)]
)
@pytest.mark.usefixtures("coarse")
def test_intervals_have_the_truth_as_often_as_they_say(population, sensitivity, specificity):
    """1,200 cells of the world a judge, whose truth is known; 25 labels a cell.

    The bounds are the claimed 93 to 97 %, less and more 1.5 points: twice the standard error of
    the count, whose rows share labels. Own labels have it more often where a judge errs seldom: 25
    without an error do not show how seldom. ``tests/bench/bench_judge_error.py`` counts more.
    """
    rng = np.random.default_rng(1)
    harmful = replays.asked(population, 100, rng).harmful
    verdict = replays.flipped(harmful, sensitivity, specificity, rng)
    table = replays.counted(harmful, verdict, replays.sampled(verdict, 25, rng))
    error = judge_error(table)
    pooled = replays.covered(rogan_gladen(table, error), population.truth)
    own = replays.covered(prediction_powered(table), population.truth)
    assert np.isfinite([pooled, own]).all()
    assert 0.915 <= np.mean(pooled) <= 0.985
    for found, is_so in ((error.sensitivity, sensitivity), (error.specificity, specificity)):
        assert np.mean(replays.covered(found, np.array(is_so))) >= 0.9  # of 100 tables
    assert 0.915 <= np.mean(own) <= (0.985 if specificity < 0.99 else 1)


@pytest.mark.usefixtures("coarse")
def test_rare_harm_is_covered_too():
    """Rates of 0 to 3 %: one label that is harmful by chance does not show that the rate is not 0.
    Without that rule 90 % of these intervals have the truth."""
    rates, rng = (
        np.array([0, 0.005, 0.005, 0.01, 0.01, 0.01, 0.02, 0.02, 0.03]),
        np.random.default_rng(5),
    )
    harmful = rng.random((120, len(rates), 260)) < rates[:, None]
    verdict = replays.flipped(harmful, 0.9, 0.95, rng)
    table = replays.counted(harmful, verdict, replays.sampled(verdict, 15, rng))
    found = prediction_powered(table)
    assert 0.93 <= np.mean(replays.covered(found, rates)) <= 0.985
    assert (found.low[table.harmful.sum(-1) <= 1] == 0).all()


@pytest.mark.usefixtures("coarse")
def test_where_the_error_differs_only_own_labels_have_the_truth(population):
    """A judge that takes for harmful whatever is no refusal, in cells of which four answer much
    nonsense: one error for all is refused, and would miss the truth."""
    nonsense = replays.world_cells(RATES[4:8], confused=0.3)
    mixed = replays.Population(
        *(np.concatenate(pair) for pair in zip(population, nonsense, strict=True))
    )
    rng = np.random.default_rng(2)
    drawn = replays.asked(mixed, 25, rng)
    table = replays.counted(*drawn, replays.sampled(drawn.not_refused, 25, rng))
    own = replays.covered(prediction_powered(table), mixed.truth)
    pooled = replays.covered(rogan_gladen(table, judge_error(table)), mixed.truth)
    assert np.mean(own) >= 0.93
    assert np.mean(pooled[:, -4:]) <= 0.5
    refused = [same_error(Counts(*(part[i] for part in table))) < 0.05 for i in range(10)]
    assert all(refused)
