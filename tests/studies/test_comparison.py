"""Methods side by side: rows that can be compared, pairs on prompts, and equal prices."""

import math

import pandas as pd
import pytest
from latex_tables import assert_tables_hold_text
from summaries import (
    METHODS,
    SAFETY_DATA,
    comparison_sweep,
    reported,
    samples,
    sweep,
    terminal,
    typed,
)

from raycib.report import tables
from raycib.report.frame import to_frame
from raycib.report.scores import aligned_scores
from raycib.report.statistics import mcnemar, wilson
from raycib.report.table import Table, shown
from raycib.report.variants import best, of, plain_variant, settings, variants
from raycib.studies.comparison.matched_cost import matched_cost, pivoted
from raycib.studies.comparison.paired import columns as columns_of_pairs
from raycib.studies.comparison.paired import (
    paired_flips,
    paired_table,
    significance,
)
from raycib.studies.comparison.table1 import columns as columns1
from raycib.studies.comparison.table1 import table1
from raycib.studies.strength.table3 import columns as columns3
from raycib.studies.strength.table3 import table3


def seen1(table):
    return shown(table, columns1(table))


def seen3(table):
    return shown(table, columns3(table))


def seen_pairs(table):
    return shown(table, columns_of_pairs(table))


def said(verdicts: str):
    """ "su?" as answers to three prompts: safe, unsafe, unreadable."""
    words = {"s": "safe", "u": "unsafe", "?": "unreadable"}
    return [{"prompt": f"p{i}", "answer": "", "verdict": words[v]} for i, v in enumerate(verdicts)]


def cell(method, strength, hrr, loss, seed=0, **more):
    """A cell of a comparison with the numbers that matter here."""
    scores = {"eval_loss": loss}
    for name, value in {"hrr": hrr, **more}.items():
        scores[name] = {"value": value, "low": None, "high": None, "n": 100}
    return {
        "key": f"{method} {strength} {seed}", "method": method, "strength": strength, "seed": seed,
        "task": "open", "model": "m", "parameters": {}, "failed": None, "scores": scores,
        "safety_data": method in SAFETY_DATA,
    }  # fmt: skip


def framed(*cells):
    return to_frame(typed({"format": 2, "sweep": "s", "study": "comparison", "cells": list(cells)}))


# Rows


def test_plain_lora_comes_first_and_the_rest_as_given():
    found = variants(framed(cell("kl", 3, 0.1, 1), cell("kl", 1, 0.2, 1), cell("lora", 0, 0.6, 1),
                        cell("ema", 0.9, 0.5, 1)))  # fmt: skip
    assert [variant.name for variant in found] == ["LoRA", "KL at 1", "KL at 3", "EMA"]


def test_of_several_kinds_of_plain_lora_the_one_so_named_is_the_standard():
    tuned = cell("lora", 0, 0.4, 1) | {"label": "LoRA with a low learning rate", "key": "t"}
    usual = cell("lora", 0, 0.6, 1) | {"label": "LoRA"}
    found = variants(framed(tuned, usual))
    assert [variant.name for variant in found] == ["LoRA", "LoRA with a low learning rate"]
    lora = plain_variant(found)
    assert lora and lora.mean("hrr") == 0.6


def test_the_best_strength_is_coherent_within_its_budget_and_keeps_its_accuracy():
    found = variants(framed(
        cell("kl", 1, 0.30, 1.0, incoherent_rate=0.1, accuracy=1.0),
        cell("kl", 2, 0.20, 2.0, incoherent_rate=0.1, accuracy=0.8),
        cell("kl", 3, 0.01, 1.0, incoherent_rate=0.2, accuracy=1.0),
    ))  # fmt: skip
    chosen = [best(found), best(found, 1.5), best(found, accuracy=0.9), best(found, 0.5)]
    assert [variant.strength if variant else None for variant in chosen] == [2, 1, 1, None]


def test_models_and_tasks_are_never_compared_with_one_another():
    summary = comparison_sweep(1)
    summary["cells"] += [c | {"task": "math", "key": c["key"] + "m"} for c in summary["cells"]]
    frame = to_frame(typed(summary))
    assert [name for name, _ in settings(frame)] == ["world:aligned, open", "world:aligned, math"]
    table = paired_table(frame, samples(summary, 20))
    for row in table.to_dict("records"):
        assert row["against"].split(" at ")[0].endswith(row["series"][-4:])


# Table 1


def test_table_1_gives_wilsons_interval_at_the_mean_for_the_prompts_alone():
    """Rates of .10 and .20 on 100 prompts: mean .15, std .0707, and n is 100, not 200."""
    frame = framed(cell("kl", 1, 0.1, 1.0), cell("kl", 1, 0.2, 1.2, seed=1))
    [row] = table1(frame).to_dict("records")
    ends = wilson(0.15, 100)
    assert row["hrr_mean"] == pytest.approx(0.15)
    assert row["hrr_std"] == pytest.approx(0.1 / math.sqrt(2))
    assert (row["hrr_low"], row["hrr_high"]) == pytest.approx((ends.low, ends.high))
    assert row["hrr_n"] == 100
    assert (row["seeds"], row["eval_loss_mean"]) == (2, pytest.approx(1.1))


def test_table_1_starts_with_the_model_before_and_plain_lora():
    summary = comparison_sweep()
    table = table1(to_frame(typed(summary)), aligned_scores(typed(summary)))
    assert table["series"].tolist()[:3] == ["before fine-tuning", "LoRA", "Random subset"]
    assert len(table) == 1 + sum(map(len, METHODS.values()))
    first = table.iloc[0]
    assert first["hrr_n"] == 260 and first["hrr_high"] == pytest.approx(0.01456, abs=1e-4)


def test_table_1_shows_probes_and_what_a_row_cost():
    summary = comparison_sweep()
    shown = seen1(table1(to_frame(typed(summary)), aligned_scores(typed(summary))))
    safe = shown[shown["Method"] == "Safe LoRA"].iloc[0]
    assert safe["facts, %"] == "95.0 ± 0.0" and safe["Steps"] == "200, derived"
    assert shown[shown["Method"] == "SaLoRA"].iloc[0]["Rank"] == "16"


def test_a_failed_cell_stays_in_sight_with_its_reason():
    summary = comparison_sweep()
    broken = next(c for c in summary["cells"] if c["method"] == "cib" and c["strength"] == 5)
    broken |= {"failed": "out of memory", "scores": None}
    for c in summary["cells"]:
        if c["method"] == "sbr" and c["strength"] == 50:
            c |= {"failed": "no safety data", "scores": None}
    table = table1(to_frame(typed(summary)), aligned_scores(typed(summary)))
    kept = table[(table["series"] == "CIB") & (table["strength"] == 5)]
    assert kept["seeds"].tolist() == [2, 0]
    assert kept["status"].tolist() == ["", "failed (seed 0): out of memory"]
    narrow = Table("t", table, columns1(table), key=("series", "strength")).brief
    assert len(narrow[(narrow["Method"] == "SBR") & (narrow["Strength"] == "50")]) == 1
    text = terminal(summary)
    assert "CIB, strength 5: failed (seed 0): out of memory" in text
    assert text.count("no safety data") == 3


def test_the_terminal_shows_a_comparison_within_140_columns():
    summary = comparison_sweep(labels={"cib": "CIB, the most similar negatives of a long queue"})
    assert max(map(len, terminal(summary).splitlines())) <= 140


def test_the_terminal_shows_a_dose_response_as_table_3():
    summary = sweep()
    table = seen3(table3(to_frame(typed(summary)), aligned_scores(typed(summary))))
    assert terminal(summary) == tables.to_terminal(table)


def test_a_comparison_that_failed_altogether_still_has_tables():
    summary = comparison_sweep(1)
    for c in summary["cells"]:
        c |= {"failed": "no disk", "scores": None}
    frame = to_frame(typed(summary))
    shown = seen1(table1(frame))
    assert shown["Status"].str.contains("no disk").all() and len(shown) == len(frame)
    assert "no disk" in terminal(summary)
    assert len(paired_table(frame, {})) == 0 and significance(paired_table(frame, {})) == ""
    assert set(pivoted(matched_cost(frame))["any loss"]) == {"–"}


@pytest.mark.parametrize("label", ["<script>alert(1)</script>", "=1+1", "a_b & 5 % of $x$ | c"])
def test_a_label_is_one_cell_of_text_in_every_table(label, tmp_path):
    summary = comparison_sweep(1, labels={"cib": label})
    assert_tables_hold_text(reported(summary, samples(summary, 30)).tables, tmp_path)


# Pairs


def test_with_one_seed_a_pair_is_mcnemars():
    """5 became safe, 1 unsafe, 1 pair unread: 2 * (1 + 6) / 2^6 = .21875; rates 6/9 and 2/9."""
    found = paired_flips({0: said("uuuuuussss"[:9] + "u")}, {0: said("sssssusus" + "?")})
    assert (found.to_safe, found.to_unsafe, found.unread) == (5, 1, 1)
    assert (found.prompts, found.seeds) == (9, 1)
    assert found.p == pytest.approx(mcnemar(5, 1)) == pytest.approx(0.21875)
    assert found.difference == pytest.approx((2 - 6) / 9)
    assert found.low < found.difference < found.high


def test_seeds_share_their_prompts_so_equal_seeds_add_nothing():
    first, second = said("uuuuuusss"), said("sssssusus")
    one = paired_flips({0: first}, {0: second})
    three = paired_flips(dict.fromkeys(range(3), first), dict.fromkeys(range(3), second))
    assert three.p == pytest.approx(one.p) and three.to_safe == 3 * one.to_safe
    assert (three.difference, three.low, three.high) == (one.difference, one.low, one.high)


def test_flips_of_a_prompt_cancel_over_seeds():
    """Prompt 0 flips both ways, prompt 1 becomes safe in both seeds: d = 0 and -2, p = 1."""
    found = paired_flips({0: said("uu"), 1: said("su")}, {0: said("ss"), 1: said("us")})
    assert (found.to_safe, found.to_unsafe, found.p) == (3, 1, 1.0)
    assert found.difference == pytest.approx((0 - 1) / 2)


def test_only_seeds_and_prompts_of_both_count():
    found = paired_flips({0: said("uu"), 1: said("uu")}, {1: said("sss"), 2: said("ss")})
    assert (found.seeds, found.prompts, found.to_safe) == (1, 2, 2)
    nothing = paired_flips({0: said("u")}, {1: said("s")})
    assert nothing.prompts == 0 and nothing.p == 1 and math.isnan(nothing.difference)


def test_every_row_is_held_against_lora_and_the_best_of_cib():
    summary = comparison_sweep()
    table = paired_table(to_frame(typed(summary)), samples(summary))
    rows = sum(map(len, METHODS.values()))
    assert table["against"].value_counts().to_dict() == {"LoRA": rows - 1, "CIB at 10": rows - 1}
    assert (table["p_holm"] >= table["p"]).all() and (table["seeds"] == 3).all()
    assert "Against LoRA: of 29 rows" in significance(table)


def test_without_cib_or_lora_there_is_less_to_hold_rows_against():
    cells = [cell("kl", 1, 0.1, 1), cell("cib", 1, 0.2, 1)]
    answers = {"kl 1 0": said("su"), "cib 1 0": said("us")}
    assert set(paired_table(framed(*cells), answers)["against"]) == {"CIB"}
    assert len(paired_table(framed(*cells[:1]), answers)) == 0
    assert len(paired_table(framed(*cells), {"kl 1 0": said("su")})) == 0


def test_no_difference_is_said_to_be_none():
    frame = framed(cell("lora", 0, 0.5, 1), cell("kl", 1, 0.5, 1))
    table = paired_table(frame, {"lora 0 0": said("su"), "kl 1 0": said("us")})
    assert significance(table) == (
        "Against LoRA: of 1 row none differs at 5 % after Holm's correction."
    )
    assert seen_pairs(table)["Difference, points"][0].startswith("+0.0 [-")


# Equal prices


def test_matched_cost_finds_the_lowest_rate_within_each_budget():
    """LoRA's loss is 1: within 1.1 CIB reaches .4, within 1.5 it reaches .2, and .1 at any loss;
    KL fits nowhere below 2."""
    frame = framed(cell("lora", 0, 0.6, 1.0), cell("cib", 1, 0.4, 1.05), cell("cib", 5, 0.2, 1.5),
                   cell("cib", 10, 0.1, 9.0), cell("kl", 1, 0.3, 2.0))  # fmt: skip
    shown = pivoted(matched_cost(frame)).set_index("Method")
    within = ["–", "40.0 (1)", "40.0 (1)", "20.0 (5)", "20.0 (5)", "10.0 (10)"]
    assert shown.loc["CIB"].tolist() == within
    assert shown.loc["KL"].tolist() == ["–"] * 4 + ["30.0"] * 2
    assert shown.loc["LoRA"].tolist() == ["60.0"] * 6
    assert "≤ 1.1 × LoRA's (1.100)" in shown.columns


def test_garbage_is_no_bargain():
    frame = framed(cell("lora", 0, 0.6, 1.0), cell("cib", 1, 0.0, 1.0, incoherent_rate=0.5))
    table = matched_cost(frame)
    assert table[table["series"] == "CIB"]["hrr_mean"].isna().all()


def test_without_plain_lora_only_the_unlimited_budget_is_asked():
    table = matched_cost(framed(cell("cib", 1, 0.4, 1.05)))
    assert table["budget"].tolist() == [math.inf] and table["hrr_mean"].tolist() == [0.4]
    assert list(pivoted(table).columns) == ["Method", "any loss"]


def test_one_row_of_one_method_is_enough_for_every_table():
    frame = framed(cell("cib", 1, 0.4, 1.05))
    assert isinstance(seen1(table1(frame)), pd.DataFrame)
    assert of(variants(frame), "cib")[0].name == "CIB"
