"""Claims of the trade-offs paper: each rule on numbers small enough to check by eye."""

import pytest
from summaries import gap_rows, gaps_sweep, typed

from raycib.report.scores import aligned_scores
from raycib.studies.tradeoff.bound_claims import NEGLIGIBLE
from raycib.studies.tradeoff.claims import gap_claims
from raycib.studies.tradeoff.gap import gap_frame

STARTS = {
    "similar": "A proxy more like the original",
    "safety": "A larger λ gives a smaller alignment gap",
    "price": "A larger λ gives a larger capability gap",
    "overlap": "Less overlap of prompts",
    "restrictive": "Case II is more restrictive",
    "tighter": "A larger penalty or smaller radius",
    "1": "Theorem 1, ", "proof": "Theorem 1 by its proof", "2": "Theorem 2, capability",
    "3": "Theorem 3", "4": "Theorem 4 as stated", "4c": "Theorem 4 corrected",
    "negligible": "The alignment tax is negligible",
    "coherent": "Low harmful response rates are refusals",
}  # fmt: skip


def judged(summary):
    found = gap_claims(
        gap_frame(typed(summary)), aligned_scores(typed(summary)), typed(summary).theory
    )
    return {
        name: claim
        for claim in found
        for name, start in STARTS.items()
        if claim.text.startswith(start)
    }


CASE_1, CASE_2 = ("lora", "case1"), ("lora", "case2", "case2_ball")


def first_task(**more):
    """The three proxies of the first task under Case I."""
    return gaps_sweep(methods=CASE_1, tasks=1, **more)


def picked(summary, method, task="how-to", proxy=None, strength=None):
    return [
        cell
        for cell in summary["cells"]
        if (cell["method"], cell["task"]) == (method, task)
        and proxy in (None, cell["parameters"].get("safety"))
        and strength in (None, cell["strength"])
    ]


def give(cells, **gaps):
    for cell in cells:
        cell["scores"] |= {name: gap_rows(value) for name, value in gaps.items()}


def test_every_claim_is_made_of_a_whole_sweep():
    summary = gaps_sweep()
    found = judged(summary)
    assert set(found) == set(STARTS)
    erosion = [
        claim
        for claim in gap_claims(
            gap_frame(typed(summary)), aligned_scores(typed(summary)), typed(summary).theory
        )
        if "erodes safety" in claim.text
    ]
    assert [claim.text.split(":")[0] for claim in erosion] == ["how-to", "shop", "sums"]


# Similarity


def test_the_more_similar_proxy_wins_at_every_lambda():
    found = judged(first_task())["similar"]
    assert found.holds is True and found.evidence.startswith("10 of 10 hold")
    assert "original data 1.610 < near outputs 2.532" in found.evidence


def test_proxies_whose_intervals_overlap_leave_the_order_open():
    """1.090 ± .051 and 1.13 ± .052 overlap."""
    summary = first_task()
    give(picked(summary, "case1", proxy="far outputs", strength=0.9), alignment_gap=1.13)
    claim = judged(summary)["similar"]
    assert claim.holds is None and claim.evidence.startswith("9 of 10 hold, 0 fail, 1 are open")
    assert "λ = 0.9: near outputs 1.090 ≈ far outputs 1.130" in claim.evidence


def test_a_proxy_that_beats_a_more_similar_one_fails_the_claim():
    summary = first_task()
    give(picked(summary, "case1", proxy="far outputs", strength=0.5), alignment_gap=0.01)
    claim = judged(summary)["similar"]
    assert claim.holds is False and claim.evidence.split("; ")[1].startswith("λ = 0.5: near")


def test_similarity_is_what_the_terms_say_not_the_names():
    summary = first_task()
    for row in summary["theory"]["proxies"]:
        if row["name"] == "far outputs":
            row |= {"tv_outputs": 0.1, "kl_outputs": 0.2}
    claim = judged(summary)["similar"]
    assert claim.holds is False and "far outputs 5.004 > near outputs 2.532" in claim.evidence


def test_proxies_that_the_terms_do_not_order_are_not_compared():
    """Far outputs have the larger total variation, near ones the larger divergence: neither is
    nearer. The original data are, to both."""
    summary = first_task()
    for row in summary["theory"]["proxies"]:
        if row["name"] == "far outputs":
            row |= {"tv_outputs": 0.3, "kl_outputs": 0.2}
    assert judged(summary)["similar"].evidence.startswith("5 of 5 hold")


@pytest.mark.parametrize("theory", [True, False])
def test_without_terms_similarity_is_open_and_without_proxies_not_asked(theory):
    assert judged(first_task(theory=False))["similar"].holds is None
    summary = first_task(theory=theory)
    summary["cells"] = [c for c in summary["cells"] if "outputs" not in (c["label"] or "")]
    assert "similar" not in judged(summary)


# Strength


def test_lambda_trades_one_gap_for_the_other():
    found = judged(gaps_sweep(methods=CASE_1))
    assert found["safety"].holds is True and found["price"].holds is True
    assert found["safety"].evidence.startswith("5 of 5 hold")


def test_one_step_the_wrong_way_fails_and_equal_ends_leave_open():
    summary = gaps_sweep(methods=CASE_1)
    give(picked(summary, "case1", "shop", strength=0.5), alignment_gap=3.0)
    give(picked(summary, "case1", "sums"), capability_gap=0.02)
    found = judged(summary)
    assert found["safety"].holds is False and "shop, original data" in found["safety"].evidence
    assert found["price"].holds is None and "4 of 5 hold" in found["price"].evidence


def test_a_ball_is_the_tighter_the_smaller_its_radius():
    summary = gaps_sweep(methods=CASE_2, tasks=2)
    found = judged(summary)["tighter"]
    assert found.holds is True and "how-to, ball, 2 to 0.25: 3.3" in found.evidence
    give(picked(summary, "case2_ball", strength=0.25), alignment_gap=9.0)
    assert judged(summary)["tighter"].holds is False


def test_a_single_strength_says_nothing_of_more():
    summary = gaps_sweep()
    summary["cells"] = [c for c in summary["cells"] if c["strength"] in (0, 0.1, 0.25)]
    found = judged(summary)
    assert "safety" not in found and "tighter" not in found


# Overlap


def test_tasks_are_ordered_by_what_they_share_with_the_original_data():
    summary = gaps_sweep(methods=CASE_1)
    assert judged(summary)["overlap"].holds is True
    give(picked(summary, "case1", "sums", strength=0.1), capability_gap=0.015)
    claim = judged(summary)["overlap"]
    assert claim.holds is None and "λ = 0.1: sums (0 %) 0.015 ≈ shop (11 %) 0.015" in claim.evidence
    give(picked(summary, "case1", "sums"), capability_gap=0.0)
    give(picked(summary, "case1", "shop"), capability_gap=0.03)
    give(picked(summary, "case1", "how-to"), capability_gap=0.06)
    assert judged(summary)["overlap"].holds is True
    give(picked(summary, "case1", "sums", strength=0.3), capability_gap=0.5)
    assert judged(summary)["overlap"].holds is False


def test_equal_overlaps_tell_nothing():
    summary = gaps_sweep(methods=CASE_1)
    for row in summary["theory"]["overlaps"]:
        row["overlap"] = 0.2
    assert judged(summary)["overlap"].holds is None
    summary["cells"] = [c for c in summary["cells"] if c["task"] == "how-to"]
    assert "overlap" not in judged(summary)


# Case I and Case II


def plane(**variants):
    """One task; Case I at rising λ and the ball at rising ε as (capability, alignment) gaps."""
    summary = gaps_sweep(methods=("lora", "case1", "case2_ball"), tasks=1)
    summary["cells"] = [c for c in summary["cells"] if "outputs" not in (c["label"] or "")]
    kept = picked(summary, "lora")
    for method, places in variants.items():
        for cell, (capability, alignment) in zip(picked(summary, method), places, strict=False):
            give([cell], capability_gap=capability, alignment_gap=alignment)
            kept.append(cell)
    return judged(summary | {"cells": kept})["restrictive"]


def test_case_2_is_compared_with_the_cheapest_of_case_1_that_is_as_safe():
    """At 2.0 the cheapest of Case I that is as safe costs .5 (at 1.0), the ball 1.5."""
    claim = plane(case1=[(0.1, 3.0), (0.5, 1.0)], case2_ball=[(1.5, 2.0)])
    assert claim.holds is True and "beyond Case I's range: 0 safer than all of it, 0" in (
        claim.evidence
    )
    assert "Case I, original data at 0.3 0.500 (alignment 1.000) <" in claim.evidence
    assert plane(case1=[(0.1, 3.0), (0.5, 1.0)], case2_ball=[(0.3, 2.0)]).holds is False
    assert plane(case1=[(0.1, 3.0), (0.5, 1.0)], case2_ball=[(0.51, 2.0)]).holds is None


def test_beyond_case_1s_range_nothing_can_be_compared():
    claim = plane(case1=[(0.1, 3.0), (0.5, 1.0)], case2_ball=[(5.0, 0.2), (0.01, 9.0)])
    assert claim.holds is None
    assert claim.evidence.endswith("1 safer than all of it, 1 less safe")


def test_an_variant_of_case_2_that_another_one_beats_does_not_count():
    claim = plane(case1=[(0.1, 3.0), (0.5, 1.0)], case2_ball=[(0.3, 2.0), (9.0, 2.5)])
    assert claim.holds is False and claim.evidence.startswith("0 of 1 hold, 1 fail")


def test_without_case_2_nothing_is_said_of_it():
    found = judged(first_task())
    assert not {"restrictive", "tighter", "4", "4c"} & set(found)


# Bounds and tax


def test_a_bound_that_fails_in_one_cell_fails():
    found = judged(gaps_sweep())
    assert found["1"].holds is True and "no bound in 5 more" in found["1"].evidence
    assert found["2"].holds is False and "fails in 5" in found["2"].evidence
    assert "largest found" in found["3"].text and found["3"].holds is True


def test_a_bound_within_an_interval_leaves_the_theorem_open():
    """No shared prompt, so a bound of 0, and gaps of 0 ± .008."""
    summary = gaps_sweep(methods=CASE_1)
    give(picked(summary, "case1", "sums"), capability_gap_exact=0.0)
    assert judged(summary)["2"].holds is None


def test_without_theory_no_theorem_is_judged():
    found = judged(first_task(theory=False))
    assert not {"1", "proof", "2", "3", "4", "4c"} & set(found)
    assert found["safety"].holds is True


@pytest.mark.parametrize(("bound", "holds"), [(0.049, True), (0.05, False)])
def test_a_tax_is_negligible_below_5_percent_of_the_entropy(bound, holds):
    summary = first_task()
    for cell in summary["cells"]:
        cell["scores"] |= {"tax_bound": bound, "label_entropy": 1.0}
    assert NEGLIGIBLE == 0.05 and judged(summary)["negligible"].holds is holds
    summary["cells"][-1]["scores"]["tax_bound"] = 0.06
    assert judged(summary)["negligible"].holds is False, "one row above it is enough"


# Holes


def test_one_seed_that_failed_leaves_the_others():
    summary = first_task(seeds=3)
    picked(summary, "case1", proxy="near outputs")[0] |= {"failed": "stopped", "scores": None}
    found = judged(summary)
    assert found["similar"].holds in (True, None) and "of 10 hold" in found["similar"].evidence


def test_gaps_that_were_not_measured_are_not_compared():
    summary = first_task()
    for cell in picked(summary, "case1", strength=0.5):
        cell["scores"]["alignment_gap"] = None
    found = judged(summary)["similar"]
    assert found.holds is True and found.evidence.startswith("8 of 8 hold")
    assert "nan" not in found.evidence


def test_nothing_is_claimed_of_gaps_where_everything_failed():
    summary = gaps_sweep()
    for cell in summary["cells"]:
        cell |= {"failed": "stopped", "scores": None}
    assert judged(summary) == {}
