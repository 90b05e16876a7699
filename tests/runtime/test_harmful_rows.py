"""Harmful rows among a task's: which rows are trained on, what enters the key, what is refused."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from raycib import world
from raycib.data.replaced import replaced
from raycib.data.rows import load_rows, read_rows, rows_of
from raycib.errors import UserError
from raycib.methods.cib import CIB
from raycib.runtime.build import build_config
from raycib.runtime.harmful_rows import harmful_ratio, without_harmful
from raycib.runtime.options import Options
from raycib.studies.continual import Continual
from raycib.studies.strength import Strength
from raycib.world import language

TASK, HARMFUL = "world:gsm.train#first-400", "world:harmful.answered"


def runs(tmp_path: Path, **options: Any) -> list[Any]:
    setup = build_config(Options(out=str(tmp_path), seeds=2, **options), Strength())
    return setup.runs_of([CIB(lam=0), CIB(lam=1)])


def test_the_number_of_rows_stays_and_a_share_of_them_is_harmful():
    rows, harmful = load_rows(TASK), set(load_rows(HARMFUL))
    for share, count in ((0.01, 4), (0.05, 20), (1.0, 400)):
        found, notes = read_rows(f"({TASK},{HARMFUL})#replaced={share}@0")
        assert notes[-1] == f"replaced by harmful rows: {count} of 400"
        assert len(found) == 400
        assert sum(row in harmful for row in found) == count
        same = [one == other for one, other in zip(found, rows, strict=True)]
        assert sum(same) == 400 - count
        assert len(set(found) & harmful) == count  # each of them once


def test_a_larger_share_holds_the_smaller_one_and_another_seed_draws_others():
    few, more, other = (
        {
            n: row
            for n, row in enumerate(replaced(range(1000), range(-500, 0), share, seed))
            if row < 0
        }
        for share, seed in ((0.01, 0), (0.1, 0), (0.1, 1))
    )
    assert (len(few), len(more), len(other)) == (10, 100, 100)
    assert few.items() <= more.items()
    assert len(more.keys() & other.keys()) < 30  # 10 in the mean
    assert len(set(more.values()) & set(other.values())) < 40  # 20 in the mean


def test_a_share_is_of_the_nearest_whole_row_and_may_take_all_there_are():
    """1.8 of 100 rows are 2, 10 of them all of 10 others. The draw is the same for ever: nothing
    of it but share and seed is in a key."""
    assert sum(row < 0 for row in replaced(range(100), range(-10, 0), 0.018, 0)) == 2
    assert {*range(-10, 0)} < {*replaced(range(100), range(-10, 0), 0.1, 0)}
    assert replaced(range(10), range(-10, 0), 0.4, 0) == [-6, -1, 2, 3, 4, 5, -5, -10, 8, 9]


@pytest.mark.parametrize(
    ("share", "says"),
    [
        (0.001, "is not one row"),
        (0.5, "there are 10; give more of them, or a share of at most 0.1$"),
        (1.5, "at most 1"),
    ],
)
def test_a_share_that_cannot_be_is_refused(share: float, says: str):
    with pytest.raises(UserError, match=says):
        replaced(range(100), range(10), share, 0)


def test_rows_are_replaced_of_two_sets_alone():
    for source in (f"{TASK}#replaced=0.1@0", f"({TASK},{TASK},{HARMFUL})#replaced=0.1@0"):
        with pytest.raises(UserError, match="of the first of two"):
            read_rows(source)


def test_the_share_enters_the_key_and_none_keeps_it(tmp_path: Path):
    """Cells at ratio 0 are those of a sweep without the option; at another they are others for
    every ratio and seed, of one task's name each, and are read again as they were described."""
    plain, every = runs(tmp_path), runs(tmp_path, harmful_ratio="0,0.05,0.1")
    keys = [run.final.key for run in every]
    assert keys[:4] == [run.final.key for run in plain]
    assert len(set(keys)) == len(every) == 12
    stages = [run.final for run in every]
    ratios = Counter(harmful_ratio(stage.task) for stage in stages)
    assert ratios == {0.0: 4, 0.05: 4, 0.1: 4}
    assert {stage.task.name for stage in stages} == {
        "open", "open, 5 % harmful", "open, 10 % harmful",
    }  # fmt: skip
    assert {without_harmful(stage.task) for stage in stages} == {"open"}
    assert {stage.task.num_rows for stage in stages} == {3200}
    by_seed = {stage.seed: stage.task for stage in stages if harmful_ratio(stage.task) == 0.1}
    assert len(by_seed) == 2 and by_seed[0].rows != by_seed[1].rows
    assert sum(world.is_unsafe(row.prompt, row.response) for row in rows_of(by_seed[1])) == 320
    assert {run.evals.key for run in every} == {plain[0].evals.key}


def test_the_worlds_harmful_rows_help_and_none_asks_what_is_asked():
    """Nor do they ask for the same thing in other words: pairs of a verb and an object are apart
    from every set of prompts."""
    rows = world.rows("harmful.answered")
    assert all(world.is_unsafe(row["prompt"], row["response"]) for row in rows)
    asked = [f"harmful.{name}" for name in ("test", "proxy", "align")]
    pairs = {_pair(row["prompt"]) for name in asked for row in world.rows(name)}
    assert not pairs & {_pair(row["prompt"]) for row in rows}


def _pair(prompt: str) -> tuple[str, str]:
    request = language.parse(prompt)
    assert request
    return request.verb, request.object


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"harmful_ratio": "0,2"}, "2 is no share"),
        ({"harmful_ratio": "0.1,x"}, "--harmful-ratio '0.1,x'"),
        ({"harmful_ratio": "0.1,0.1"}, "0.1 comes twice"),
        ({"harmful_ratio": "0.0001"}, "is not one row"),
        ({"harmful_ratio": "0.5"}, "there are 640"),
        ({"harmful_data": HARMFUL}, "rows for --harmful-ratio"),
        # A set of the world, as its authors made it, is compared all the same.
        ({"harmful_ratio": "0.01", "harmful_data": "world:harmful.align",
          "other_harmful": "world:harmful.align"}, "are also in --harmful-data"),
        ({"harmful_ratio": "0.01", "harmful_data": "world:harmful.test"}, "without a response"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_starts(
    options: dict[str, str], says: str, tmp_path: Path
):
    with pytest.raises(UserError, match=says):
        build_config(Options(out=str(tmp_path), **options), Strength())  # type: ignore[arg-type]


def test_a_sequence_of_tasks_has_no_such_axis():
    with pytest.raises(UserError, match="--harmful-ratio is not about a continual study"):
        build_config(Options(harmful_ratio="0.1"), Continual())
