"""Tests, intervals and analyses held to statsmodels and SciPy, on ordinary data and at the edges:
none, one, two, all equal, equal but for rounding, not a number."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.duration.survfunc import SurvfuncRight
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.inter_rater import cohens_kappa as their_kappa
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from raycib.metrics import METRICS
from raycib.report.agreement import Reading, cohens_kappa, order
from raycib.report.cards.effects import effect
from raycib.report.over_steps.survival import Lost, kept, median
from raycib.report.statistics import (
    clopper_pearson,
    holm,
    mcnemar,
    mean_std,
    paired_interval,
    pearson,
    sign_flip_p,
    smallest_difference,
    spearman,
    t_interval,
    wilson,
)
from raycib.studies.comparison.paired import paired_flips
from raycib.studies.continual.variance import BOTH, METHOD, ORDER, SEED, anova

EDGES = {
    "none": [],
    "one": [0.3],
    "two": [0.3, 0.5],
    "equal": [0.3, 0.3, 0.3, 0.3],
    "rounding": [0.3, 0.1 + 0.2, 0.3 + 1e-8, 0.3],
    "not a number": [0.3, math.nan, 0.5, math.inf],
}


def test_the_analysis_of_variance_is_statsmodels():
    """Sums of squares, degrees, F and p of the balanced design with seeds as blocks."""
    luck = np.random.default_rng(0)
    for shape in ((2, 2, 2), (6, 4, 2), (3, 5, 4)):
        values = luck.normal(0.3, 0.05, shape) + 0.03 * np.arange(shape[1])[None, :, None]
        rows = [(*place, values[place]) for place in np.ndindex(shape)]
        frame = pd.DataFrame(rows, columns=["order", "method", "seed", "y"])
        theirs = anova_lm(ols("y ~ C(order) * C(method) + C(seed)", frame).fit(), typ=2)
        names = {ORDER: "C(order)", METHOD: "C(method)", BOTH: "C(order):C(method)",
                 SEED: "C(seed)"}  # fmt: skip
        for source in anova(values)[:-1]:
            row = theirs.loc[names[source.name]]
            assert (source.df, source.ss) == (row["df"], pytest.approx(row["sum_sq"]))
            assert (source.f, source.p) == pytest.approx((row["F"], row["PR(>F)"]))


@pytest.mark.parametrize(("b", "c"), [(8, 1), (0, 5), (3, 3), (60, 95), (1, 0), (0, 0)])
def test_mcnemars_test_is_statsmodels(b: int, c: int):
    theirs = their_mcnemar([[7, b], [c, 9]], exact=True).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(theirs, rel=1e-12)


def test_holms_correction_is_statsmodels():
    luck = np.random.default_rng(1)
    for count in (1, 2, 5, 40):
        ps = luck.random(count) ** 3
        ps[: count // 3] = ps[0]  # ties
        assert holm(ps.tolist()) == pytest.approx(multipletests(ps, method="holm")[1])


@pytest.mark.parametrize("n", [1, 2, 7, 260])
def test_wilsons_interval_is_statsmodels(n: int):
    for hits in {0, 1, n // 3, n}:
        found = wilson(hits / n, n)
        theirs = proportion_confint(hits, n, method="wilson")
        assert (found.low, found.high) == pytest.approx(theirs, abs=1e-12)


def test_students_interval_is_statsmodels():
    values = np.random.default_rng(2).normal(0.2, 0.1, 9)
    found = t_interval(values)
    assert (found.low, found.high) == pytest.approx(DescrStatsW(values).tconfint_mean())


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
def test_of_counts_that_hardly_differ_the_interval_has_the_truth(seeds: int):
    """One prompt more with a chance of .3, and seeds that differ by nothing else. Without a step
    all seeds are often equal and the interval has no width: of 2 it has the truth in 42 %, of 5 in
    82 %."""
    more = np.random.default_rng(0).random((500, seeds)) < 0.3
    found = [t_interval(one / 260, step=1 / 260) for one in more]
    assert np.mean([one.low <= 0.3 / 260 <= one.high for one in found]) >= 0.95
    alike = t_interval(np.full(seeds, 1 / 260), step=1 / 260)
    assert alike.alike and (alike.low < 0) == (seeds < 7)


def test_the_smallest_difference_has_the_power_that_statsmodels_gives_it():
    for n in (30, 260, 1000):
        for rate in (0.05, 0.3, 0.5):
            apart = smallest_difference(n, rate)
            size = 2 * math.asin(math.sqrt(rate + apart)) - 2 * math.asin(math.sqrt(rate))
            power = NormalIndPower().power(size, n, alpha=0.05, alternative="larger")
            two_sided = NormalIndPower().power(size, n, alpha=0.05)
            assert two_sided == pytest.approx(0.8, abs=1e-3) and power > two_sided


def test_kappa_and_its_error_are_statsmodels():
    for counts in ((20, 5, 10, 15), (60, 2, 1, 3), (1, 1, 1, 97), (0, 7, 9, 30), (60, 2, 0, 3)):
        said = [pair for pair, n in zip(((1, 1), (1, 0), (0, 1), (0, 0)), counts, strict=True)
                for _ in range(n)]  # fmt: skip
        found = cohens_kappa([Reading(k, a, b) for k, (a, b) in enumerate(said)])
        theirs = their_kappa(np.array([[counts[0], counts[1]], [counts[2], counts[3]]]))
        n = sum(counts)
        half = stats.t.ppf(0.975, n - 1) * theirs.std_kappa * math.sqrt(n / (n - 1))
        assert found.value == pytest.approx(theirs.kappa)
        ends = max(theirs.kappa - half, -1), min(theirs.kappa + half, 1)
        assert (found.low, found.high) == pytest.approx(ends, abs=1e-12)


def test_pairs_over_seeds_and_prompts_are_a_bootstraps():
    """The interval of a difference over prompts is the percentile bootstrap's over prompts, and the
    exact p is that of all signs, drawn at random."""
    luck = np.random.default_rng(3)
    drawn = luck.choice([-1, 0, 1], p=[0.3, 0.6, 0.1], size=(200, 3))
    shared = luck.choice([-1, 0, 1], p=[0.2, 0.75, 0.05], size=(200, 1))
    differences = np.clip(drawn + shared, -1, 1)
    verdict = {-1: ("unsafe", "safe"), 0: ("safe", "safe"), 1: ("safe", "unsafe")}
    sides: list[dict[int, list[dict[str, str]]]] = [{}, {}]
    for seed in range(3):
        for side in (0, 1):
            sides[side][seed] = [
                {"prompt": f"p{place}", "verdict": verdict[int(d)][side]}
                for place, d in enumerate(differences[:, seed])
            ]
    found = paired_flips(*sides)
    means = differences.mean(axis=1)
    resampled = means[luck.integers(0, 200, (20_000, 200))].mean(axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert found.difference == pytest.approx(means.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)
    few = differences[:40, 0]
    signs = luck.choice([-1, 1], (40_000, 40))
    by_draws = np.mean(np.abs(signs @ few) >= abs(few.sum()))
    assert sign_flip_p(few.tolist()) == pytest.approx(by_draws, abs=0.01)
    assert (found.to_safe, found.to_unsafe) == ((differences < 0).sum(), (differences > 0).sum())


def test_an_effect_over_seeds_and_prompts_is_no_narrower_than_a_crossed_bootstraps():
    """Seeds and prompts resampled together (Owen's pigeonhole bootstrap) vary no more."""
    luck = np.random.default_rng(4)
    apart = -0.3 + luck.normal(0, 0.1, (6, 1)) + luck.normal(0, 0.2, (1, 120))
    drawn = np.clip(apart + luck.normal(0, 0.2, (6, 120)), -1, 1)
    found = effect(drawn, [(np.ones(120, bool), 1.0)])
    again = [drawn[luck.integers(0, 6, 6)][:, luck.integers(0, 120, 120)].mean()
             for _ in range(2_000)]  # fmt: skip
    low, high = np.quantile(again, [0.025, 0.975])
    assert found.value == pytest.approx(np.mean(again), abs=0.01)
    assert found.low <= low + 0.01 and found.high >= high - 0.01


def test_kaplan_and_meiers_estimate_is_statsmodels_and_its_median_exact():
    """Over 300 made-up rows of up to eleven seeds, a third censored anywhere: in floats .7 * 5 / 7
    is more than a half, of which fractions know nothing."""
    luck, looks = np.random.default_rng(1), list(range(20, 201, 20))
    ties = 0
    for _ in range(300):
        places = luck.integers(0, 10, int(luck.integers(2, 12)))
        losses = [Lost(looks[place] - 20, looks[place]) if luck.random() < 0.7
                  else Lost(looks[place], math.inf) for place in places]  # fmt: skip
        ends = [one.by if math.isfinite(one.by) else one.after for one in losses]
        seen = [int(math.isfinite(one.by)) for one in losses]
        theirs = SurvfuncRight(np.array(ends), np.array(seen))
        found, exact, half = kept(losses, looks), Fraction(1), math.inf
        for one in found:
            place = np.searchsorted(theirs.surv_times, one.step, side="right")
            assert one.share == pytest.approx([1.0, *theirs.surv_prob][place])
            left = sum(end >= one.step for end in ends)
            exact *= 1 - Fraction(sum(loss.by == one.step for loss in losses), max(left, 1))
            half = min(half, one.step if exact <= Fraction(1, 2) else math.inf)
            ties += exact == Fraction(1, 2) != one.share
        assert median(found) == half
    assert ties, "some halves are not quite halves"


@pytest.mark.parametrize("n", [1, 3, 40])
def test_clopper_and_pearsons_ends_are_statsmodels(n: int):
    for hits in {0, 1, n // 2, n}:
        theirs = proportion_confint(hits, n, method="beta")
        assert clopper_pearson(hits / n, n, 0.025) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("values", EDGES.values(), ids=EDGES)
def test_no_statistic_warns_or_makes_up_a_number_at_the_edges(values: list[float]):
    """A spread needs two finite values that differ; a correlation three; an interval two."""
    finite = [value for value in values if math.isfinite(value)]
    line = [float(place) for place in range(len(values))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spread, ends = mean_std(values), t_interval(values)
        for measure in (pearson, spearman):
            found = measure(values, line)
            assert found.r is None and found.p_t is None and found.note
        cells = order(values, line)
    assert spread.n == ends.n == len(finite)
    assert math.isnan(spread.mean) == (not finite)
    assert math.isnan(spread.std) == math.isnan(ends.low) == (len(finite) < 2)
    assert cells.rows == len(finite) and cells.pairs == math.comb(len(finite), 2)
    if len(finite) == 4:
        assert spread.std == 0 and ends.low == ends.high, "no variance"
        assert cells.tau is None, "neither tells any two apart"


def test_shares_and_pairs_at_the_edges():
    assert math.isnan(paired_interval([]).value)
    one = paired_interval([1.0])
    assert (one.value, one.high, one.n) == (1, 1, 1) and one.low < 0.5
    nothing = paired_interval([0.0] * 50)
    assert nothing.value == 0 and nothing.low == -nothing.high < 0, "50 prompts are no certainty"
    assert sign_flip_p([]) == sign_flip_p([0, 0]) == 1
    assert math.isnan(cohens_kappa([]).value)
    assert math.isnan(cohens_kappa([Reading(0, True, True)] * 3).value), "no chance to disagree"
    lost = effect(np.full((3, 4), math.nan), [(np.ones(4, bool), 1.0)])
    assert math.isnan(lost.value) and lost.n == 0


def test_a_mean_of_scores_is_within_what_scores_can_be():
    """Student's interval of 0.1, 1, 1 ends at 1.99, which no share can be; what is no number is
    unread."""
    found = METRICS["accuracy"].of([0.1, 1, 1])
    half = stats.t.ppf(0.975, 2) * 0.3
    assert found.value == pytest.approx(0.7) and 0.7 + half > 1
    assert (found.low, found.high) == (0, 1)
    some = METRICS["accuracy"].of([0.5, 0.7, math.nan, None])
    assert (some.value, some.n, some.unread) == (pytest.approx(0.6), 2, 2)
    assert METRICS["accuracy"].of([math.nan]).value is None
