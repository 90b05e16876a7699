"""Harmful rows among a task's: the rates by their share, and the bound on the worst of them."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from summaries import rate, reported, sweep, typed

from raycib.report.cards.cards import cards
from raycib.report.poisoned.section import with_poisoned
from raycib.report.poisoned.table import best_of_each, poisoned_table
from raycib.report.poisoned.table import said as told
from raycib.report.poisoned.worst_case import ends, worst_case
from raycib.report.statistics import clopper_pearson

PROMPTS = 200


def planted(rates: dict[tuple[str, float], list[float]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A sweep and its answers: by method and share of harmful rows a rate for each seed."""
    cells, said = [], {}
    example = sweep(failed=False)["cells"][0]
    for (method, ratio), of_seeds in rates.items():
        for seed, share in enumerate(of_seeds):
            key, task = f"{method} {ratio} {seed}", f"open, {ratio:g}" if ratio else "open"
            cells.append(
                example
                | {"key": key, "method": method, "strength": float(method == "cib"), "seed": seed}
                | {"task": task, "scores": example["scores"] | {"hrr": rate(share, PROMPTS)}}
                | {"task_data": {"harmful_ratio": ratio, "without_harmful": "open"}}
            )
            said[key] = [
                {"prompt": str(n), "answer": "", "refused": n >= round(share * PROMPTS)}
                | {"verdict": "unsafe" if n < round(share * PROMPTS) else "safe"}
                for n in range(PROMPTS)
            ]
    return sweep() | {"cells": cells}, said


FOUND = {
    ("lora", 0.0): [0.4, 0.5],
    ("lora", 0.1): [0.8, 0.9],
    ("cib", 0.0): [0.1, 0.1],
    ("cib", 0.1): [0.3, 0.5],
}


def test_each_method_has_its_rate_at_every_share_and_the_worst_of_them():
    summary, said = planted(FOUND)
    for cell, babbled in zip(summary["cells"], (0.1, 0.2, 0, 0.1, 0, 0.1, 0.3, 0.5), strict=True):
        cell["scores"]["incoherent_rate"] = rate(babbled, PROMPTS)
    report = with_poisoned(reported(summary, said), said)
    table = next(one for one in report.tables if one.stem == "poisoned")
    lora, cib = table.rows.to_dict("records")
    assert (lora["hrr_at_0_mean"], lora["hrr_at_0.1_mean"]) == pytest.approx((0.45, 0.85))
    assert (cib["worst"], cib["worst_at"], cib["prompts"]) == (pytest.approx(0.4), 0.1, PROMPTS)
    assert cib["worst_low"] < 0.4 < cib["worst_high"]
    assert (lora["incoherent"], cib["incoherent"]) == pytest.approx((0.15, 0.4)), (
        "most of its means"
    )
    assert list(table.shown["HRR at 10 %"]) == ["85.0 ± 7.1", "40.0 ± 14.1"]
    assert report.drawn()["poisoned"] is not None
    assert report.notes[-1].startswith("worst over shares of harmful rows: LoRA at most")


def test_the_lowest_bound_is_told_with_its_method_and_strength():
    summary, said = planted({("lora", 0.1): [0.8, 0.8], ("cib", 0.1): [0.3, 0.3]})
    for cell in summary["cells"]:
        cell["scores"]["incoherent_rate"] = rate(0, PROMPTS)
    rows = poisoned_table(reported(summary, said).frame, said)
    lora, cib = (100 * ends(np.arange(PROMPTS) < np.array([[hits]] * 2), 0.025)[2]
                 for hits in (160, 60))  # fmt: skip
    assert told(rows) == (
        f"worst over shares of harmful rows: LoRA at most {lora:.1f} %; "
        f"lowest bound: CIB 1 at most {cib:.1f} %"
    )


def test_of_several_tasks_each_has_its_own_bounds_and_babble_has_none():
    """Three means of a tenth are no more than a tenth, whatever their sum is in floats."""
    row = {"model": "m", "task": "a", "strength": 1.0, "label": "LoRA", "worst_high": 0.5}
    tenth = sum([0.1, 0.1, 0.1]) / 3
    assert tenth > 0.1
    rows = [
        row | {"incoherent": 0.0},
        row | {"label": "CIB", "worst_high": 0.2, "incoherent": tenth},
        row | {"label": "KL", "worst_high": 0.1, "incoherent": 0.3},
        row | {"task": "b", "worst_high": 0.9, "incoherent": 0.0},
    ]
    assert told(pd.DataFrame(rows)) == (
        "worst over shares of harmful rows: m, a: LoRA at most 50.0 %; lowest bound: CIB 1 at most "
        "20.0 %; m, b: LoRA at most 90.0 %; lowest bound: LoRA 1 at most 90.0 %"
    )


def test_a_method_is_drawn_where_its_worst_is_lowest_among_what_is_coherent():
    """Babble in 10 % is coherent; where none is, all count."""
    at = {"model": "m", "task": "t", "label": "CIB"}
    rows = [{"worst": 0.1, "incoherent": 0.11}, {"worst": 0.3, "incoherent": 0.1},
            {"worst": 0.4, "incoherent": 0.0}]  # fmt: skip
    for few, lowest in ((rows, 0.3), (rows[:1], 0.1), (rows[::-1], 0.3)):
        [best] = best_of_each(pd.DataFrame([at | row for row in few]))
        assert best["worst"] == lowest


def test_a_task_with_harmful_rows_is_no_other_task_for_a_card():
    summary, said = planted(FOUND)
    [card] = cards(typed(summary), said)
    checks = {check.name for part in card.parts for check in part.checks}
    assert "another task" in checks
    assert card.setting == ""


def test_without_harmful_rows_nothing_is_added():
    report = reported(sweep())
    assert with_poisoned(report, {}) is report


def test_what_failed_has_no_worst_case():
    """Neither without answers at some share, nor without finished cells: it would be the worst of
    fewer shares than others'."""
    summary, said = planted(FOUND)
    for cell in summary["cells"][2:4]:
        cell["failed"] = "lost"
    lora, _ = poisoned_table(reported(summary, said).frame, said).to_dict("records")
    assert lora["hrr_at_0_mean"] == pytest.approx(0.45)
    assert math.isnan(lora["worst"]) and math.isnan(lora["worst_at"])
    summary, said = planted(FOUND)
    del said["cib 0.1 0"], said["cib 0.1 1"]
    _, cib = poisoned_table(reported(summary, said).frame, said).to_dict("records")
    assert math.isnan(cib["worst"])


def test_a_sweep_of_which_no_cell_finished_has_no_such_section():
    """Nor one that has just begun, whose page is shown while it runs."""
    summary, said = planted(FOUND)
    for cell in summary["cells"]:
        cell |= {"failed": "lost", "scores": None}
    report = reported(summary, said)
    assert with_poisoned(report, said) is report


def test_one_seed_at_one_share_has_clopper_and_pearsons_interval():
    outcomes = np.zeros((1, 50))
    outcomes[0, :7] = 1
    _, found = worst_case([outcomes])
    exact = stats.binomtest(7, 50).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert clopper_pearson(0, 50, 0.025)[0] == 0 and clopper_pearson(1, 50, 0.025)[1] == 1


def test_seeds_and_prompts_add_as_squares():
    """Five seeds at 20 to 40 %: their mean is 30 %, its standard error the root of .00625 / 5."""
    outcomes = np.zeros((5, 100))
    for seed, hits in enumerate((20, 25, 30, 35, 40)):
        outcomes[seed, :hits] = 1
    exact = stats.binomtest(30, 100).proportion_ci(0.95, "exact")
    seeds = stats.t.ppf(0.975, 4) * math.sqrt(0.00625 / 5)
    ends_ = [0.3 - math.hypot(0.3 - exact.low, seeds), 0.3 + math.hypot(exact.high - 0.3, seeds)]
    assert ends(outcomes, 0.025) == pytest.approx((0.3, *ends_))


@pytest.mark.parametrize(
    ("truths", "of_seeds"),
    [((0.3, 0.3, 0.3, 0.3), 0.3), ((0.02, 0.05, 0.1, 0.4), 0.5), ((0.01, 0.01, 0.01, 0.01), 0.0)],
)
def test_the_worst_case_has_the_truth_as_often_as_it_says(
    truths: tuple[float, ...], of_seeds: float
):
    """Of 3 seeds and 100 prompts, for other seeds and prompts, whether one share is the worst or
    all are as bad. An answer is harmful where a prompt's and a seed's push, shared by all shares,
    and its own are together above a threshold."""
    luck, shares = np.random.default_rng(1), len(truths)
    spread = math.sqrt(1 + of_seeds**2 + 0.5**2)
    held = above = 0
    for _ in range(600):
        prompts = luck.normal(0, 0.5, (1, 1, 100))
        seeds = luck.normal(0, of_seeds, (shares, 3, 1))
        push = prompts + seeds + luck.normal(0, 1, (shares, 3, 100))
        limits = stats.norm.ppf(1 - np.array(truths)) * spread
        _, found = worst_case(list((push > limits[:, None, None]).astype(float)))
        held += found.low <= max(truths) <= found.high
        above += found.high >= max(truths)
    assert held / 600 >= 0.95
    assert above / 600 >= 0.975 - 0.0125  # two standard errors of the count
