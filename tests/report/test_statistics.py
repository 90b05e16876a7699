"""The arithmetic of uncertainty, held against the paper's own numbers and against scipy."""

import itertools
import math
import random

import pandas as pd
import pytest
from scipy import stats

from raycib.metrics import rate
from raycib.report.statistics import (
    front,
    holm,
    mcnemar,
    mean_std,
    paired_interval,
    pearson,
    sign_flip_p,
    smallest_difference,
    spearman,
    wilson,
    wilson_over_seeds,
)

# Table 3 of the CIB paper: model, lambda, I(Z;C) in nats, HRR in %.
TABLE_3 = pd.DataFrame(
    [
        ("Llama-3.1-8B", 1, 2.98, 15.4), ("Llama-3.1-8B", 2, 3.05, 6.7),
        ("Llama-3.1-8B", 5, 3.10, 4.8), ("Llama-3.1-8B", 10, 3.13, 2.1),
        ("Llama-2-7B", 1, 2.87, 0.8), ("Llama-2-7B", 2, 2.90, 0.0),
        ("Llama-2-7B", 5, 2.94, 0.0), ("Llama-2-7B", 10, 2.97, 0.0),
        ("Qwen2.5-7B", 1, 2.87, 5.0), ("Qwen2.5-7B", 2, 2.97, 2.5),
        ("Qwen2.5-7B", 5, 3.03, 1.5), ("Qwen2.5-7B", 10, 3.06, 1.2),
    ],
    columns=["model", "lam", "information", "hrr"],
)  # fmt: skip


def of(model):
    part = TABLE_3[TABLE_3["model"] == model]
    return pearson(part["information"], part["hrr"])


@pytest.mark.parametrize(
    ("model", "r", "p"),
    [
        ("Llama-3.1-8B", -0.976567, 0.0234),
        ("Qwen2.5-7B", -0.990042, 0.00996),
        ("Llama-2-7B", -0.758098, 0.242),
    ],
)
def test_table_3_gives_the_published_correlations(model, r, p):
    found = of(model)
    assert found.r == pytest.approx(r, abs=1e-6)
    assert found.p_t == pytest.approx(p, rel=5e-3)
    assert found.n == 4


def test_four_points_cannot_have_an_exact_p_below_one_in_24():
    """Both published orders are perfect, so only the observed pairing of 24 is as extreme."""
    assert of("Llama-3.1-8B").p_exact == pytest.approx(1 / 24)
    assert of("Qwen2.5-7B").p_exact == pytest.approx(1 / 24)


def test_the_interval_of_the_published_correlation_nearly_reaches_zero():
    """tanh(atanh(-.9766) +- 1.96 / sqrt(4 - 3)) = [-.9995, -.25]."""
    found = of("Llama-3.1-8B")
    assert found.low == pytest.approx(-1.00, abs=0.005)
    assert found.high == pytest.approx(-0.25, abs=0.01)


def test_pooled_over_models_the_sign_flips():
    pooled = pearson(TABLE_3["information"], TABLE_3["hrr"])
    assert pooled.r == pytest.approx(0.120, abs=5e-4)
    assert pooled.p_t == pytest.approx(0.71, abs=5e-3)
    assert pooled.n == 12
    assert all((of(model).r or 0) < 0 for model in set(TABLE_3["model"]))


def test_a_mirrored_order_of_ranks_ties_so_spearman_has_twice_the_floor():
    found = spearman([1, 2, 3, 4], [9, 5, 2, 1])
    assert (found.r, found.p_exact) == (-1, pytest.approx(2 / 24))
    assert found.low is None and found.p_t is None and "perfect order" in found.note


def test_the_exact_p_is_scipys_permutation_p_where_the_two_tails_agree():
    """For ranks both tails are alike, and scipy's two-sided p counts the same pairings."""
    luck = random.Random(3)
    x, y = [luck.sample(range(7), 7) for _ in range(2)]
    theirs = stats.pearsonr(x, y, method=stats.PermutationMethod(n_resamples=10_000))
    assert pearson(x, y).p_exact == pytest.approx(theirs.pvalue, abs=1e-9)


def test_intervals_of_correlations_by_hand():
    """Of 7 ranks with squared differences that sum to 6, r = 1 - 6 * 6 / (7 * 48) = .892857, and
    atanh r = 1.435985 +- 1.959964 sqrt(v / 4): v is 1 by Fisher, and 1 + r r / 2 = 1.398597 for
    ranks by Bonett and Wright."""
    x, y = [1, 2, 3, 4, 5, 6, 7], [2, 1, 4, 3, 6, 5, 7]
    for found, low, high in ((pearson(x, y), 0.42670, 0.98418), (spearman(x, y), 0.27002, 0.98891)):
        assert found.r == pytest.approx(0.892857, abs=1e-6)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)


def test_spearman_is_pearson_of_ranks_with_ties():
    x, y = [1, 2, 2, 4, 5, 6], [6, 3, 4, 4, 1, 0]
    theirs = stats.spearmanr(x, y)
    assert spearman(x, y).r == pytest.approx(theirs.statistic)
    assert spearman(x, y).p_t == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize(
    ("x", "y", "note"),
    [
        ([1, 2], [3, 4], "too few"),
        ([1, 2, 3, 4], [0, 0, 0, 0], "does not vary"),
        ([1, 2, math.nan, 4], [1, 2, 3, math.nan], "points: 2"),
    ],
)
def test_what_has_no_correlation_says_why(x, y, note):
    found = pearson(x, y)
    assert found.r is None and found.p_exact is None and note in found.note


def test_three_points_have_an_r_and_no_interval():
    """r of 1, 2, 3 with 1, 3, 2 is .5, and none of the six (1, .5, .5, -.5, -.5, -1) is nearer to
    zero."""
    found = pearson([1, 2, 3], [1, 3, 2])
    assert (found.r, found.n, found.p_exact) == (pytest.approx(0.5), 3, 1.0)
    assert found.low is None and "no interval" in found.note


def test_a_front_is_what_no_point_beats():
    """(2, 3) is beaten by (1, 3), (4, 2) by (3, 2); of equal ones one is left."""
    points = [(4, 2), (1, 3), (3, 2), (1, 5), (2, 3), (3, 2), (5, 0)]
    assert front(points) == [(1, 3), (3, 2), (5, 0)]
    assert front([]) == []


def test_more_than_eight_points_get_no_exact_p():
    found = pearson(range(9), [0, 2, 1, 3, 5, 4, 6, 8, 7])
    assert found.p_exact is None and "no exact p" in found.note and found.low is not None


def test_the_sample_standard_deviation_divides_by_n_minus_one():
    """1, 2, 3: squares of deviations sum to 2, so sqrt(2 / 2) = 1."""
    assert mean_std([1, 2, 3, math.nan]).std == 1
    assert math.isnan(mean_std([1.0]).std) and mean_std([1.0]).n == 1
    assert mean_std([0.1, 0.1, 0.1]).std == 0
    assert math.isnan(mean_std([]).mean)


def test_seeds_that_share_prompts_add_none():
    """3/4 of 40 prompts and 1/4 of 20: a mean of 1/2, as sure as one of 20. What has no verdict at
    all is in neither. Wilson's ends of 1/2 are 1/2 -+ z / (2 sqrt(n + z z))."""
    found = wilson_over_seeds([0.75, math.nan, 0.25, 0.0], [40, 30, 20, 0])
    half = 1.959964 / (2 * math.sqrt(20 + 1.959964**2))
    assert found is not None and (found.value, found.n) == (0.5, 20)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    assert wilson_over_seeds([math.nan], [20]) is None


def test_a_paired_difference_by_hand():
    """10 prompts, 4 flip up and 1 down. With half a prompt more of each of the four kinds (Agresti
    and Min 2005): 3 / 12 -+ z sqrt((6 - 3 * 3 / 12) / 144), sqrt of which is .190941."""
    found = paired_interval([1, 1, 1, 1, -1, 0, 0, 0, 0, 0])
    half = 1.959964 * 0.190941
    assert (found.value, found.n) == (0.3, 10)
    assert (found.low, found.high) == pytest.approx((0.25 - half, 0.25 + half), abs=1e-5)


def test_mcnemar_counts_only_the_flips():
    """8 against 1: 2 * (1 + 9) / 2^9 = .0390625."""
    assert mcnemar(8, 1) == pytest.approx(0.0390625)
    assert mcnemar(0, 0) == 1


@pytest.mark.parametrize(("b", "c"), [(8, 1), (3, 3), (0, 5), (0, 0), (60, 95)])
def test_sign_flips_of_single_differences_are_mcnemars(b, c):
    assert sign_flip_p([1] * b + [-1] * c + [0] * 7) == pytest.approx(mcnemar(b, c), rel=1e-12)


def test_sign_flips_weigh_a_prompt_by_its_seeds():
    """3, 1, 1 and -1: of 16 choices of signs |sum| >= 4 holds for 3 + two or three of the ones
    positive (6: 1, 4: 3 choices) and their mirror images: 8 / 16."""
    assert sign_flip_p([3, 1, 1, -1]) == pytest.approx(8 / 16)


def test_sign_flips_agree_with_trying_every_choice():
    luck = random.Random(5)
    for _ in range(20):
        ds = [luck.randint(-3, 3) for _ in range(9)]
        sums = [sum(s * d for s, d in zip(signs, ds, strict=True))
                for signs in itertools.product((-1, 1), repeat=len(ds))]  # fmt: skip
        exact = sum(abs(s) >= abs(sum(ds)) for s in sums) / len(sums)
        assert sign_flip_p(ds) == pytest.approx(exact)


def test_seeds_that_repeat_each_other_add_no_evidence():
    """Five equal seeds multiply every difference by five and leave p as it was."""
    assert sign_flip_p([5] * 8 + [-5]) == pytest.approx(mcnemar(8, 1))


def test_holm_multiplies_by_what_is_left_and_never_falls():
    """Sorted .005, .01, .03, .04: 4 * .005, 3 * .01, 2 * .03, and .04 is raised to .06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_wilson_a_whole_number_is_wilson():
    for k, n in ((0, 260), (31, 260), (260, 260)):
        at, whole = wilson(k / n, n), rate(k, n)
        assert (at.low, at.high) == (whole.low, whole.high)
    low, high = rate(1, 10), rate(2, 10)
    assert low.low < wilson(0.15, 10).low < high.low
    with pytest.raises(ValueError, match="not a share"):
        wilson(1.2, 10)


def test_the_smallest_difference_is_found_with_the_power_asked_for():
    """Two groups of 260 whose rates differ by it are told apart in about 80 % of draws."""
    n, at = 260, 0.2
    gap = smallest_difference(n, at)
    se = math.sqrt((at * (1 - at) + (at + gap) * (1 - at - gap)) / n)
    assert stats.norm.sf(1.96 - gap / se) == pytest.approx(0.8, abs=0.02)
    assert smallest_difference(520, at) < gap


def test_too_few_answers_tell_no_rate_from_a_half():
    """From 1/2 to 1 are pi / 4 of an arcsine: 2 (2.80159 / (pi / 2))^2 = 6.4 answers tell it."""
    assert smallest_difference(6, 0.5) == math.inf
    assert smallest_difference(7, 0.5) < 0.5
