"""How many groups are trained side by side: a worker has to be worth its start."""

from pathlib import Path

import pytest

from raycib.methods.cib import CIB
from raycib.runtime.build import build_config
from raycib.runtime.options import Options
from raycib.runtime.planning.estimate import estimate
from raycib.runtime.planning.machine import machine_of
from raycib.runtime.planning.phases import WORTH_S, trainers
from raycib.runtime.sweep import Sweep
from raycib.studies.strength import Strength


def sweep(folder: Path, **settings: str) -> Sweep:
    """Four strengths and three seeds of 200 steps in the embedded world."""
    changes = [f"{name.replace('__', '.')}={value}" for name, value in settings.items()]
    setup = build_config(Options(out=str(folder), seeds=3, dry_run=True, set=changes), Strength())
    return Sweep(setup, setup.runs_of([CIB(lam=lam) for lam in (0, 2, 5, 10)]))


def many(one: Sweep, most: int) -> int:
    return trainers(one, one.plan(most), most)


def test_as_many_as_fit_where_each_trains_for_long(tmp_path: Path) -> None:
    assert many(sweep(tmp_path), 2) == 2


def test_each_has_that_much_of_the_plans_training(tmp_path: Path) -> None:
    """Sixteen cores, and so many workers as there is training for by the plan that people see."""
    one = sweep(tmp_path)
    told = estimate(one, one.plan(16), machine_of(one.setup.options, one.setup.execution))
    hours = {phase.name: phase.hours for phase in told.phases}["training"]
    assert 1 < many(one, 16) < 16
    assert many(one, 16) == int(3600 * hours / WORTH_S)


def test_what_is_trained_counts_no_more(tmp_path: Path) -> None:
    one = sweep(tmp_path)
    one.trained = {key for key in one.stages if key != one.runs[0].final.key}
    assert many(one, 2) == 1


@pytest.mark.parametrize("asked", [1, 3])
def test_who_asks_for_some_has_them(tmp_path: Path, asked: int) -> None:
    one = sweep(tmp_path, execution__groups_at_once=str(asked))
    assert many(one, 2) == asked
