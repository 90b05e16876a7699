"""Equal trials for every method, and what more of them buy."""

import math
import runpy
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from card_replays import Replays

from raycib.config.grid import trials
from raycib.errors import UserError
from raycib.report.frame import to_frame
from raycib.runtime.build import build_config
from raycib.runtime.options import Options
from raycib.studies.comparison import Comparison
from raycib.studies.comparison.budget import best_after, budget_table, said
from raycib.studies.strength import Strength


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


def test_other_studies_have_no_budget():
    with pytest.raises(UserError, match="--budget is not about a strength study"):
        build_config(Options(budget=4), Strength())
