"""The theorems' bounds: hand-derived numbers, and what is said where a term is missing."""

import math

import pytest
from summaries import gap_rows, gaps_sweep, typed

from raycib.report.table import shown
from raycib.studies.tradeoff.bounds import (
    amount,
    bounds,
    columns,
    judged,
    summary_columns,
    summary_table,
    theorem1,
    theorem1_by_proof,
    theorem2,
    theorem4_decrease,
)
from raycib.studies.tradeoff.gap import gap_frame
from raycib.studies.tradeoff.terms import (
    COLUMNS,
    DATA,
    MODEL,
    data_terms,
    model_terms,
    tax_table,
)
from raycib.studies.tradeoff.theory import by_similarity, more_similar


def held(summary):
    return bounds(gap_frame(typed(summary)), typed(summary).theory)


def only(table, theorem, **where):
    found = table[table["theorem"] == theorem]
    for name, value in where.items():
        found = found[found[name] == value]
    return found


# Constants


def test_theorem_1_has_the_constants_of_its_proof():
    """λ = 0.5, C_p = 3, TV .25 and .5, KL .3: 2*3/.5 = 12; the proof's absolute differences are
    twice the total variations and come up twice: 3 * 2 * (.5 + 1) = 9; 12 + 9 + .3 = 21.3."""
    assert theorem1(0.5, 3, 0.25, 0.5, 0.3) == pytest.approx(21.3)


def test_theorem_2_bounds_the_tabular_optimum():
    """One shared prompt, task answers (.8, .2), safety answers (.2, .8), λ = 1: the optimum is
    (.5, .5), whose gap .192745 is below λ KL = .6 log 4 = .831777."""
    task, safety, optimum = (0.8, 0.2), (0.2, 0.8), (0.5, 0.5)
    divergence = sum(s * math.log(s / t) for s, t in zip(safety, task, strict=True))
    gap = sum(t * math.log(t / o) for t, o in zip(task, optimum, strict=True))
    assert theorem2(1, divergence) == pytest.approx(0.831777, abs=1e-6)
    assert theorem2(0.5, divergence) == pytest.approx(0.415888, abs=1e-6)
    assert gap == pytest.approx(0.192745, abs=1e-6)
    row = judged({"capability_gap": gap}, "capability_gap", theorem2(1, divergence))
    assert row["holds"] is True
    assert (row["slack"], row["ratio"]) == pytest.approx((0.639032, 4.315431), abs=1e-5)


@pytest.mark.parametrize("lam", [0.1, 0.5, 1, 4])
def test_theorem_1_by_its_proof_holds_for_the_tabular_optimum(lam):
    """Safety and task share one prompt; the aligned model answers by the safety law."""
    task, safety = (0.8, 0.2), (0.2, 0.8)
    optimum = [(t + lam * s) / (1 + lam) for t, s in zip(task, safety, strict=True)]

    def loss(truth, model):
        return -sum(p * math.log(q) for p, q in zip(truth, model, strict=True))

    gap = loss(safety, optimum) - loss(safety, safety)
    assert 0 < gap <= theorem1_by_proof(lam, loss(task, safety), loss(task, optimum))


@pytest.mark.parametrize(
    ("epsilon", "decrease"), [(0.1, 0.19), (0.5, 0.75), (1, 1), (1.5, 1), (3, 1)]
)
def test_theorem_4_corrected_is_exact_for_a_parabola(epsilon, decrease):
    """f = (θ - 1)², θ_s = 0: g = 2, L = 2; within ε < 1 the best is f(ε) = (ε - 1)²."""
    assert theorem4_decrease(2, 2, epsilon) == pytest.approx(decrease)
    assert 1 - (min(epsilon, 1) - 1) ** 2 == pytest.approx(decrease)


def test_theorem_4_as_stated_claims_more_than_a_small_ball_can_give():
    assert theorem4_decrease(2, 2) == 1 > theorem4_decrease(2, 2, 0.1)


def test_lambda_is_translated_from_means_over_tokens():
    """Answers of 11 tokens in the task and 8 in the proxy: .5 * 11 / 8 = .6875."""
    theory = typed(gaps_sweep()).theory
    assert theory.lambda_in_nats(0.5, "how-to", "near outputs") == pytest.approx(0.6875)
    assert theory.lambda_in_nats(0.5, "how-to", "unknown") is None


def test_a_convex_weight_is_translated_and_means_over_rows_have_no_lambda():
    """w = 1/3 is λ = 1/2; w = 1 trains nothing of the task."""
    theory = typed(gaps_sweep()).theory
    where = ("how-to", "near outputs")
    assert theory.lambda_in_nats(1 / 3, *where, "convex") == pytest.approx(0.6875)
    assert theory.lambda_in_nats(1, *where, "convex") is None
    assert theory.lambda_in_nats(0.5, *where, "additive", "row") is None
    summary = gaps_sweep()
    for cell in summary["cells"]:
        if cell["method"] == "case1":
            cell["parameters"] |= {"reduction": "row", "form": "additive"}
    table = held(summary)
    ours = table[table["theorem"].isin(["1", "1, by its proof", "2", "2, against LoRA"])]
    known = ours[ours["bound"].notna()]
    assert len(ours) and set(known["note"]) <= {"no prompt is shared"}
    assert "means over rows" in " ".join(ours["note"])


# Cells


def test_a_case_1_cell_has_theorem_1_and_2_from_its_own_terms():
    """λ = .5 * 11 / 8, C_p = 38, TV .25, KL .61: 76/.6875 + 4*38*.25 + .61 = 149.155; conflict
    9 * .42 nats: .6875 * 3.78 = 2.59875; both against the exact gaps."""
    table = held(gaps_sweep())
    place = {"series": "Case I, near outputs", "strength": 0.5}
    [one] = only(table, "1", **place).to_dict("records")
    [two] = only(table, "2", **place).to_dict("records")
    assert one["bound"] == pytest.approx(149.1555, abs=1e-3)
    assert two["bound"] == pytest.approx(2.59875)
    assert (one["quantity"], two["quantity"]) == ("alignment_gap_exact", "capability_gap_exact")
    assert one["holds"] is True and two["holds"] is True
    assert one["slack"] == pytest.approx(one["bound"] - one["gap"])
    [measured] = only(table, "2, against LoRA", **place).to_dict("records")
    assert measured["quantity"] == "capability_gap" and measured["bound"] == two["bound"]


def test_without_an_exact_gap_the_measured_one_is_held_against_the_bound():
    summary = gaps_sweep(methods=("lora", "case1"))
    for cell in summary["cells"]:
        cell["scores"] |= {"alignment_gap_exact": None, "capability_gap_exact": None}
    table = held(summary)
    assert set(only(table, "1")["quantity"]) == {"alignment_gap"}
    assert set(only(table, "2")["quantity"]) == {"capability_gap"}
    assert not len(only(table, "2, against LoRA"))


def test_the_comparator_of_theorem_1_is_for_the_original_data_alone():
    """λ = .1 * 11 / 8, aligned loss 15 and the cell's 1.2 + .1^1.3: (13.8 - .0501) / .1375."""
    table = only(held(gaps_sweep()), "1, by its proof", task="how-to")
    assert set(table["series"]) == {"Case I, original data"}
    assert table["bound"].iloc[0] == pytest.approx((15 - 1.2 - 0.1**1.3) / 0.1375)
    summary = gaps_sweep()
    summary["theory"]["aligned"] = {}
    lacking = only(held(summary), "1, by its proof")
    assert len(lacking) and lacking["bound"].isna().all()


def test_infinite_divergences_give_no_bound_and_no_shared_prompt_a_bound_of_0():
    table = held(gaps_sweep())
    far = only(table, "1", series="Case I, far outputs")
    assert far["bound"].isna().all() and far["holds"].tolist() == [None] * 5
    assert set(far["note"]) == {"KL of the outputs infinite or not known"}
    assert only(table, "2", series="Case I, far outputs")["bound"].isna().all()
    disjoint = only(table, "2", task="sums")
    assert set(disjoint["bound"]) == {0.0} and set(disjoint["note"]) == {"no prompt is shared"}
    summary = gaps_sweep()
    for row in summary["theory"]["overlaps"]:
        row |= {"how": "estimated", "divergence": None}
    assert only(held(summary), "2", task="sums")["bound"].isna().all()


def test_theorem_3_takes_the_slope_of_the_smallest_ball_around_the_weights():
    """Distance .25 * .25's slope 7.25; a larger ball is never less steep; 4.6 is beyond 4."""
    summary = gaps_sweep()
    table = only(held(summary), "3")
    ball = only(table, "3", method="case2_ball", strength=0.25, task="how-to")
    assert ball["bound"].iloc[0] == pytest.approx(1.8125)
    assert only(table, "3", method="case1")["bound"].isna().all()
    summary["theory"]["lipschitz"][1] |= {"ascent": 1.0, "sampled": 1.0}
    theory = typed(summary).theory
    assert theory is not None and theory.slope(0.5) == 7.25 and theory.slope(4.1) is None


def test_theorem_4_starts_from_the_aligned_models_loss_less_loras():
    """15 - 1.2 = 13.8; g = 9, L = 18, so g / L = .5: within .25 the decrease is 2.25 - .5625."""
    table = held(gaps_sweep())
    place = {"task": "how-to", "strength": 0.25}
    [corrected] = only(table, "4, corrected", **place)["bound"]
    [stated] = only(table, "4, as stated", **place)["bound"]
    assert corrected == pytest.approx(13.8 - 1.6875) and stated == pytest.approx(13.8 - 2.25)
    assert set(only(table, "4, corrected")["method"]) == {"case2_ball"}
    summary = gaps_sweep()
    for cell in summary["cells"]:  # how far a cell went in its ball does not enter
        cell["scores"]["distance"] /= 2
    assert only(held(summary), "4, corrected", **place)["bound"].tolist() == [corrected]


@pytest.mark.parametrize(
    ("found", "note"), [(-2.0, "nothing tried curves upward"), (None, "not measured")]
)
def test_theorem_4_has_no_bound_where_nothing_tried_curves_upward(found, note):
    """Assumption 4 takes L' > 0: g²/2L' of a negative one is no decrease, and of 0 has no end."""
    summary = gaps_sweep()
    for land in summary["theory"]["smoothness"]:
        land["smoothness"] = found
    table = held(summary)
    for theorem in ("4, as stated", "4, corrected"):
        part = only(table, theorem)
        assert len(part) and part["bound"].isna().all()
        assert part["note"].str.contains(note).all()


def test_theorem_4_pairs_each_seed_with_loras_of_that_seed():
    summary = gaps_sweep(2)
    for cell in summary["cells"]:
        if (cell["method"], cell["seed"]) == ("lora", 1):
            cell["scores"]["capability_nll"] = gap_rows(2.2)
    table = only(held(summary), "4, as stated", task="how-to", strength=2)
    assert table["bound"].diff().iloc[1] == pytest.approx(-1.0)
    summary["cells"] = [c for c in summary["cells"] if (c["method"], c["seed"]) != ("lora", 1)]
    lonely = only(held(summary), "4, as stated", seed=1)
    assert lonely["bound"].isna().all() and "not measured" in lonely["note"].iloc[0]


@pytest.mark.parametrize(
    ("bound", "holds"), [(1.2, True), (1.1, True), (1.0, None), (0.9, None), (0.89, False)]
)
def test_an_interval_that_contains_the_bound_leaves_it_open(bound, holds):
    cell = {"alignment_gap": 1.0, "alignment_gap_low": 0.9, "alignment_gap_high": 1.1}
    assert judged(cell, "alignment_gap", bound)["holds"] is holds


def test_a_gap_that_is_not_positive_has_slack_but_no_looseness():
    row = judged({"alignment_gap": -0.5}, "alignment_gap", 1.0)
    assert row["holds"] is True and row["slack"] == 1.5 and math.isnan(row["ratio"])


def test_the_summary_counts_cells_and_gives_the_median_looseness():
    table = held(gaps_sweep())
    found = summary_table(table).set_index("theorem")
    assert (found.loc["1", "cells"], found.loc["1", "holds"], found.loc["1", "no_bound"]) == (
        25, 20, 5
    )  # fmt: skip
    ratios = only(table, "1")["ratio"].dropna()
    assert found.loc["1", "ratio_median"] == pytest.approx(ratios.median())
    assert found.loc["2", "fails"] == 5 and found.loc["2", "slack_min"] < 0
    counts = found["holds"] + found["fails"] + found["open"] + found["no_bound"]
    assert (counts == found["cells"]).all()
    seen = shown(summary_table(table), summary_columns(table))
    assert len(seen) == len(found)
    for text in seen["Slack, nats: extremes"]:
        low, high = map(float, text.split(" to "))
        assert low <= high
    assert set(shown(table, columns(table))["Holds"]) == {"holds", "fails", "open", "no bound"}


def test_failed_cells_and_a_sweep_without_theory_have_no_bounds():
    summary = gaps_sweep()
    for cell in summary["cells"]:
        cell |= {"failed": "stopped", "scores": None}
    assert not len(held(summary)) and not len(held(gaps_sweep(theory=False)))
    assert not len(summary_table(held(summary)))


def test_a_theory_with_holes_is_read_as_far_as_it_goes():
    summary = gaps_sweep()
    summary["theory"] = {
        "proxies": [{"name": "near outputs"}],
        "lipschitz": [{"epsilon": 1, "sampled": None, "ascent": None}],
        "answer_tokens": {},
    }
    table = held(summary)
    assert table["bound"].isna().all() and table["note"].ne("").all()
    theory = typed(summary).theory
    assert len(shown(data_terms(theory), DATA)) == 1
    assert not len(shown(model_terms(theory), MODEL))


# What bounds are made of


def test_proxies_are_ordered_by_what_is_known_of_them():
    theory = typed(gaps_sweep()).theory
    first, near, far = by_similarity(theory.proxies[::-1])
    assert [first.name, near.name, far.name] == ["original data", "near outputs", "far outputs"]
    assert first.original and more_similar(first, near) and more_similar(near, far)
    assert not more_similar(far, near) and not more_similar(near, near)


def test_terms_have_a_row_for_each_proxy_and_task_and_each_constant():
    theory = typed(gaps_sweep()).theory
    seen = shown(data_terms(theory), DATA)
    assert len(seen) == 9
    assert seen.iloc[-1]["KL of answers, nats"] == "" and seen.iloc[0]["Overlap"] == "0.420"
    assert seen["How"].eq("exact").all()
    model = shown(model_terms(theory), MODEL)
    assert model["Quantity"].value_counts()["Slope of the alignment loss"] == 5
    assert model["Note"].str.contains("by ascent 7.25").any()


def test_the_tax_is_held_against_its_bound():
    summary = gaps_sweep()
    table = tax_table(gap_frame(typed(summary)))
    assert len(table) == len(summary["cells"]) and table["holds"].all()
    assert table["share"].iloc[0] == pytest.approx(0.03 / 1.94)
    summary["cells"][0]["scores"]["tax"] = 0.031
    assert shown(tax_table(gap_frame(typed(summary))), COLUMNS)["Bound"].tolist()[:2] == [
        "fails",
        "holds",
    ]
    summary["cells"][0]["scores"]["tax"] = 0.03  # equal to its bound
    assert tax_table(gap_frame(typed(summary)))["holds"].all()
    assert set(tax_table(gap_frame(typed(gaps_sweep(2))))["seeds"]) == {2}
    for cell in summary["cells"]:
        del cell["scores"]["tax"]
    assert not len(tax_table(gap_frame(typed(summary))))


def test_amounts_have_three_digits_and_no_exponent():
    found = [amount(value) for value in (0, 0.0123, 1.5, -38.26, 149.2, 31_234.5, math.nan)]
    assert found == ["0", "0.0123", "1.50", "-38.3", "149", "31234", ""]
