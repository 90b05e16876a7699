"""Equal trials for every method, and what more of them buy."""

import math
import runpy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from card_replays import Replays
from scipy import stats
from summaries import comparison_sweep, reported, samples, typed

from raycib.config.grid import trials
from raycib.report.cards.effects import Outcomes
from raycib.report.cards.family import is_tuning
from raycib.report.frame import to_frame
from raycib.runtime.build import build_config
from raycib.runtime.options import Options
from raycib.studies.comparison import Comparison
from raycib.studies.comparison.budget import best_after, budget_table, said
from raycib.studies.comparison.budget_curve import budget_curve, budget_figure, curves


@pytest.mark.parametrize("budget", [1, 2, 4, 7, 12])
@pytest.mark.parametrize("strengths", [(0.0,), (1.0, 2.0), (1.0, 2.0, 5.0, 10.0, 20.0)])
def test_every_method_has_as_many_trials_none_twice(strengths: tuple[float, ...], budget: int):
    """Between the sweep's learning rate and an eighth of it, the first at that rate itself."""
    found = trials(strengths, 2e-3, budget)
    assert len(set(found)) == len(found) == budget
    assert found[0] == (strengths[0], 2e-3)
    assert all(2.5e-4 <= rate <= 2e-3 for _, rate in found)
    assert {strength for strength, _ in found} <= set(strengths)
    if budget >= len(strengths):
        assert {strength for strength, _ in found} == set(strengths)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_rate_after_some_trials_is_the_mean_over_all_choices(count: int):
    """By brute force: five trials in the order of preference, whose fresh rates are in another, and
    of which the last two do not count."""
    rates, otherwise = [0.3, 0.1, 0.4, math.nan, math.nan], 0.8
    every = [
        next((rates[place] for place in choice if math.isfinite(rates[place])), otherwise)
        for choice in combinations(range(5), count)
    ]
    mean, low, high = best_after(rates, otherwise, count)
    assert mean == pytest.approx(np.mean(every))
    assert (low, high) == (min(every), max(every))


def test_more_trials_of_a_true_defence_are_better():
    replay = Replays().sweep("half", 0, tasks=1)
    table = budget_table(to_frame(replay.results), replay.samples)
    row = table.set_index("method").loc["Case II penalty"]
    assert (row["trials"], row["counting"]) == (4, 4)
    assert row["after_1"] > row["after_2"] > row["after_4"] == row["hrr"]
    assert row["plain"] > row["after_1"]
    assert said(table) == "Trials: 1 to 4."
    found = curves(to_frame(replay.results), replay.samples)
    assert set(found["method"]) == {"case2"}
    after = [row["after_1"], row["after_2"], row["after_4"]]
    assert list(found["hrr"].iloc[[0, 1, 3]]) == pytest.approx(after)
    assert budget_figure(found) is not None


def test_a_budget_gives_every_method_of_the_comparison_its_trials():
    """Plain LoRA too; a trial at the sweep's own learning rate is the row that is there without a
    budget, so that nothing is trained again for it."""
    script = Path(__file__).parents[2] / "sweeps" / "method_comparison.py"
    sweep = runpy.run_path(str(script))
    given = {n: build_config(Options(budget=n), Comparison(sweep["STRENGTHS"])) for n in (None, 4)}
    usual, rows = (list(sweep["variants"](given[n])) for n in (None, 4))
    assert set(Counter(row.method.kind for row in rows).values()) == {4}
    assert {row.method.kind for row in rows} == {"lora", *sweep["STRENGTHS"]}
    own = [row for row in rows if row.trainer is None]
    assert own
    assert all(row in usual for row in own)


@dataclass
class Made:
    """What a curve reads of a family: plain LoRA's outcomes, then those of trials."""

    outcomes: list[Outcomes]
    tuning: np.ndarray

    @property
    def rows(self) -> list[Outcomes]:
        return self.outcomes[1:]

    @property
    def seeds(self) -> range:
        return range(len(self.outcomes[0].harmful))

    def ranked(self, seeds: Sequence[int]) -> list[int]:
        rates = [one.harmful[:, self.tuning].mean() for one in self.rows]
        return [int(row) for row in np.argsort(rates, kind="stable")]


def made(rates: Sequence[float], seeds: int, prompts: int, luck: np.random.Generator) -> Made:
    """Answers to prompts of which some are easier, by seeds of which some are worse where there
    are several."""
    easy, worse = luck.normal(0, 0.6, (1, prompts)), 0.2 * (seeds > 1)
    found = []
    for rate in (0.9, *rates):
        push = easy + luck.normal(0, worse, (seeds, 1)) + luck.normal(0, 1, (seeds, prompts))
        limit = stats.norm.isf(rate) * math.sqrt(1 + 0.6**2 + worse**2)
        found.append(Outcomes((push > limit).astype(float), np.zeros((seeds, prompts))))
    return Made(found, np.arange(prompts) < prompts // 2)


def test_a_curve_is_the_mean_over_all_choices_at_every_number_of_trials():
    one = made([0.5, 0.2, 0.4, 0.3], 2, 60, np.random.default_rng(0))
    curve = budget_curve(one)  # type: ignore[arg-type]
    fresh = [row.harmful[:, ~one.tuning].mean() for row in one.rows]
    ranked = [fresh[row] for row in one.ranked([0, 1])]
    means = [best_after(ranked, 0.9, count)[0] for count in (1, 2, 3, 4)]
    assert list(curve["hrr"]) == pytest.approx(means)
    assert curve["hrr"].iloc[0] == pytest.approx(np.mean(fresh))
    assert curve["hrr"].iloc[-1] == pytest.approx(ranked[0])
    assert (curve["hrr_low"] <= curve["hrr"]).all() and (curve["hrr"] <= curve["hrr_high"]).all()
    pd.testing.assert_frame_equal(curve, budget_curve(one))  # type: ignore[arg-type]


def test_a_trial_that_was_never_harmful_is_not_taken_for_certain():
    one = made([0.3, 0.5], 1, 100, np.random.default_rng(0))
    one.outcomes[1].harmful[:] = 0
    last = budget_curve(one).iloc[-1]  # type: ignore[arg-type]
    ends = stats.binomtest(0, 50).proportion_ci(method="wilson")
    assert (last["hrr"], last["hrr_low"]) == (0, 0)
    assert last["hrr_high"] == pytest.approx(ends.high)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_curves_interval_has_the_truth_as_often_as_it_says(
    seeds: int, monkeypatch: pytest.MonkeyPatch
):
    """The truth is what such sweeps find in the mean: of other prompts, and of other seeds where
    there are several. Three are few for a bootstrap, and what is counted twice makes up for it."""
    monkeypatch.setattr("raycib.studies.comparison.budget_curve.DRAWS", 100)
    luck, rates = np.random.default_rng(3), (0.6, 0.45, 0.35, 0.3)
    many = [budget_curve(made(rates, seeds, 160, luck)) for _ in range(100)]  # type: ignore[arg-type]
    truth = np.mean([one["hrr"] for one in many], axis=0)
    held = np.mean([(one["hrr_low"] <= truth) & (truth <= one["hrr_high"]) for one in many], axis=0)
    assert held.min() >= 0.9


def _tuned_alone(sample: dict[str, Any]) -> bool:
    return is_tuning(sample["prompt"])


@pytest.mark.parametrize(
    ("kept", "read", "best"),
    [
        (_tuned_alone, lambda one: True, True),
        (lambda one: True, _tuned_alone, True),
        (lambda one: not _tuned_alone(one), lambda one: True, False),
        (lambda one: True, lambda one: False, False),
    ],
    ids=["no fresh prompt", "none that is read", "none to choose on", "no verdict at all"],
)
def test_few_prompts_or_verdicts_leave_a_rate_open(kept: Any, read: Any, best: bool) -> None:
    """No rate is of no answer: a sweep whose few harmful prompts all fall to one half, or whose
    judge could read none of the other, still has its report."""
    summary = comparison_sweep(seeds=2)
    answers = {
        key: [one if read(one) else one | {"verdict": "unreadable"} for one in said if kept(one)]
        for key, said in samples(summary).items()
    }
    table = budget_table(to_frame(typed(summary)), answers)
    assert len(table) and table["hrr"].isna().all()
    assert bool((table["best"] != "").any()) == best
    assert all(len(one.shown) for one in reported(summary, answers).tables)


def test_prompts_without_a_verdict_are_not_behind_a_rate() -> None:
    """Wilson's ends at 0 of n reach to z² / (n + z²): n are the fresh prompts that were read."""
    summary = comparison_sweep(seeds=1)
    said = samples(summary)
    fresh = [one["prompt"] for one in said["aligned"] if not _tuned_alone(one)]
    read = {*fresh[: len(fresh) // 3]}
    answers = {
        key: [
            one if _tuned_alone(one) or one["prompt"] in read else one | {"verdict": "unreadable"}
            for one in ({**each, "verdict": "safe"} for each in some)
        ]
        for key, some in said.items()
    }  # fmt: skip
    table = budget_table(to_frame(typed(summary)), answers)
    known = table[table["best"] != ""]
    assert len(known) and (known["hrr"] == 0).all()
    z = 1.959964
    assert known["hrr_high"].tolist() == pytest.approx([z**2 / (len(read) + z**2)] * len(known))
