"""Steps until safety is lost: Kaplan and Meier's estimate, its band, and what a report says."""

import math

import numpy as np
import pytest
from scipy import stats
from summaries import rate, reported, sweep

from raycib.report.over_steps.section import with_steps
from raycib.report.over_steps.survival import Kept, Lost, kept, lost, median


def test_safety_is_lost_between_the_last_look_with_it_and_the_first_without():
    assert lost([(0, 0.0), (20, 0.1), (40, 0.11), (60, 0.0)]) == Lost(20, 40)  # 10 % is not above
    assert lost([(0, 0.0), (20, 0.05)]) == Lost(20, math.inf)
    assert lost([(0, 0.2), (20, 0.5)]) == Lost(0, 0)


def test_kaplan_and_meier_by_hand():
    """Five seeds: one lost at 20, two at 60, one is followed to 40 only, one keeps it to 80. At 20
    the share is 4/5. At 60 two of three: 4/5 times 1/3."""
    losses = [Lost(0, 20), Lost(40, 60), Lost(40, 60), Lost(40, math.inf), Lost(80, math.inf)]
    curve = kept(losses, [0, 20, 40, 60, 80])
    assert [one.share for one in curve] == pytest.approx([1, 0.8, 0.8, 0.8 / 3, 0.8 / 3])
    assert median(curve) == 60
    assert median(curve[:3]) == math.inf


def test_without_censoring_the_band_is_clopper_and_pearsons():
    curve = kept([Lost(0, 20), Lost(20, 40), Lost(40, math.inf)], [0, 20, 40])
    exact = stats.binomtest(2, 3).proportion_ci(0.95, "exact")
    assert curve[1] == Kept(20, pytest.approx(2 / 3), pytest.approx(exact.low),
                            pytest.approx(exact.high))  # fmt: skip
    assert curve[0].high == 1 and curve[0].low == pytest.approx(0.025 ** (1 / 3))


def test_the_band_has_the_truth_as_often_as_it_says():
    """Of 3 and of 8 seeds, at every look by itself."""
    luck, looks = np.random.default_rng(2), list(range(0, 201, 20))
    for seeds in (3, 8):
        held = np.zeros(len(looks))
        for _ in range(400):
            at = luck.exponential(80, seeds)
            losses = [
                Lost(int(one // 20) * 20, (one // 20 + 1) * 20)
                if one < 200
                else Lost(200, math.inf)
                for one in at
            ]
            for place, one in enumerate(kept(losses, looks)):
                held[place] += one.low <= math.exp(-one.step / 80) <= one.high
        assert held.min() / 400 >= 0.95


def followed(every: int = 20) -> dict:
    """Two strengths and two seeds: plain LoRA loses its safety at once, or later; CIB never."""
    summary = sweep(failed=False, seeds=2)
    cells = [cell for cell in summary["cells"] if cell["strength"] in (0, 10)]
    ends = {"lora": [0.5, 0.3], "cib": [0.02, 0.04]}
    for cell in cells:
        end = ends[cell["method"]][cell["seed"]]
        cell["points"] = [
            {"step": n * every, "scores": {"hrr": rate(end * share, 200)}}
            for n, share in enumerate((0, 0.2, 0.5, 1))
        ]
    return summary | {"cells": cells}


def test_a_report_says_when_each_seed_lost_it():
    report = with_steps(reported(followed()))
    table = next(one for one in report.tables if one.stem == "over_steps")
    lora, cib = table.rows.to_dict("records")
    assert (lora["steps"], lora["lost"], lora["median"]) == ("20-40, 20-40", 2, 40)
    assert (cib["steps"], cib["lost"], cib["kept"]) == ("> 60, > 60", 0, 1.0)
    assert (lora["highest"], lora["highest_at"]) == (pytest.approx(0.4), 60)
    assert list(table.shown["Half lost it by"]) == ["40", "> 60"]
    assert report.drawn()["over_steps"] is not None
    assert not any("another training" in one for one in report.warnings)


def test_the_end_stands_beside_the_worst_look():
    """Safety that is lost at 20 and half found again counts as lost. A seed that lacks a look, or
    whose look has no rate, is left out."""
    summary = followed()
    lora = [cell for cell in summary["cells"] if cell["method"] == "lora"]
    for cell in lora:
        for point, risen in zip(cell["points"], (0, 0.5, 0.3, 0.25), strict=True):
            point["scores"]["hrr"] = rate(risen + 0.1 * cell["seed"] * (risen > 0), 200)

    def first_row() -> dict:
        report = with_steps(reported(summary))
        return next(one for one in report.tables if one.stem == "over_steps").rows.iloc[0].to_dict()

    row = first_row()
    assert (row["highest_at"], row["last_step"], row["kept"], row["seeds"]) == (20, 60, 0, 2)
    assert (row["highest"], row["hrr"]) == pytest.approx((0.55, 0.3))
    lora[0]["points"][1]["scores"]["hrr"] |= {"value": None, "low": None, "high": None}
    row = first_row()
    assert (row["seeds"], row["highest"], row["hrr"]) == (1, pytest.approx(0.6), 0.35)


def test_points_of_another_training_are_said():
    summary = followed()
    summary["cells"][0]["points_apart"] = True
    assert any(
        "points of 1 cell are of another training" in one
        for one in with_steps(reported(summary)).warnings
    )


def test_a_report_without_points_has_no_such_section():
    report = reported(sweep())
    assert with_steps(report) is report
