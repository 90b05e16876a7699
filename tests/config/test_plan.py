"""A grid becomes its unique stages, in levels, in groups that an interruption does not change."""

import pytest
from grids import grid, keys, orders, plan, sizes
from specs import EVALS, TASKS

from raycib.config.plan import MOST_SLOTS, Plan


def test_a_group_is_called_by_what_it_holds() -> None:
    (group,) = plan(grid([1.0, 0.5], seeds=2)).levels[0]
    assert group.said == "LoRA; CIB 1, 0.5; seeds 0, 1"
    one = group.model_copy(update={"jobs": group.jobs[:1]})
    assert one.said == "LoRA; seed 0"


def test_a_grid_is_the_product_of_its_axes_with_seeds_fastest():
    """2 models x 1 task x (LoRA + 2 strengths) x 3 seeds = 18 runs."""
    runs = grid([1.0, 2.0], seeds=3, models=2)
    assert len(runs) == 18
    assert [run.final.seed for run in runs[:4]] == [0, 1, 2, 0]
    assert [run.final.method.strength for run in runs[:9:3]] == [0.0, 1.0, 2.0]
    assert len({run.final.key for run in runs}) == 18


def test_strength_zero_is_trained_once_with_plain_lora():
    """LoRA, lambda 0, 1 and 5 are 4 cells and 3 trainings; a strength named twice is one."""
    one = plan(grid([0.0, 1.0, 5.0, 5.0]))
    assert (one.asked, one.stages, one.shared) == (5, 3, 2)
    (level,) = keys(one)
    assert len(level) == len(set(level)) == 3


def test_24_orders_of_4_tasks_are_64_stages():
    """Orders that begin alike share their beginning: 4 + 4*3 + 4*3*2 + 4*3*2*1 = 64, not 96."""
    one = plan(orders(TASKS))
    assert (one.asked, one.stages, one.shared) == (96, 64, 32)
    assert [len(level) for level in keys(one)] == [4, 12, 24, 24]
    assert len({key for level in keys(one) for key in level}) == 64


def test_a_parent_is_in_an_earlier_level():
    done: set[str] = set()
    for level in plan(orders(TASKS), group_size=5).levels:
        stages = [job.stage for group in level for job in group.jobs]
        assert all(stage.parent is None or stage.parent.key in done for stage in stages)
        done |= {stage.key for stage in stages}
    assert len(done) == 64


def test_only_one_base_to_a_group():
    one = plan(grid([1.0, 2.0], seeds=3, models=3), groups_at_once=2)
    bases = [{job.stage.model.key for job in group.jobs} for level in one.levels for group in level]
    assert all(len(base) == 1 for base in bases)
    assert len({key for base in bases for key in base}) == 3


@pytest.mark.parametrize(
    ("stages", "groups_at_once", "group_size", "expected"),
    [
        (10, 1, None, [10]),
        (10, 3, None, [4, 3, 3]),
        (10, 4, None, [3, 3, 2, 2]),
        (3, 8, None, [1, 1, 1]),
        (70, 1, None, [24, 23, 23]),  # more than MOST_LANES = 32 each would be 2 groups of 35
        (70, 2, None, [18, 18, 17, 17]),  # and two rounds of 2, so that no group runs alone
        (40, 2, None, [20, 20]),
        (10, 0, None, [10]),
        (10, 1, 1, [1] * 10),
        (10, 1, 4, [4, 3, 3]),
        (80, 1, 40, [40, 40]),  # asked for by name: larger than automatic groups
    ],
)
def test_groups_are_of_nearly_equal_size(
    stages: int, groups_at_once: int, group_size: int | None, expected: list[int]
):
    assert MOST_SLOTS == 32
    runs = grid([], seeds=stages)
    one = plan(runs, groups_at_once=groups_at_once, group_size=group_size)
    assert sizes(one) == expected


@pytest.mark.parametrize("group_size", [None, 1, 3])
@pytest.mark.parametrize("done", [0, 1, 7, 19])
def test_a_group_keeps_its_name_when_some_of_its_stages_are_done(group_size: int | None, done: int):
    """Its checkpoint is found by that name, so the rest must not be packed anew."""
    runs = grid([1.0, 2.0, 3.0], seeds=5)
    before = plan(runs, groups_at_once=3, group_size=group_size)
    finished = {run.final.key for run in runs[:done]}
    after = plan(
        runs,
        trained=lambda stage: stage.key in finished,
        measured=lambda stage, evals: stage.key in finished,
        groups_at_once=3,
        group_size=group_size,
    )
    homes = {job.stage.key: group.name for group in before.levels[0] for job in group.jobs}
    left = {job.stage.key: group.name for group in after.levels[0] for job in group.jobs}
    assert left == {key: home for key, home in homes.items() if key not in finished}
    assert (after.stages, after.reused, after.to_train) == (20, done, 20 - done)


def test_the_same_grid_gives_the_same_plan():
    runs = grid([1.0, 2.0], seeds=4)
    assert plan(runs, groups_at_once=3) == plan(list(runs), groups_at_once=3)
    names = [group.name for group in plan(runs, groups_at_once=3).levels[0]]
    assert len(names) == len(set(names)) == 3


def test_a_finished_grid_is_no_work():
    one = plan(grid([1.0], seeds=3), trained=lambda s: True, measured=lambda s, e: True)
    assert (one.levels, one.stages, one.reused, one.to_train) == ((), 6, 6, 0)


def test_a_finished_level_leaves_the_later_ones():
    one = plan(
        orders(TASKS),
        trained=lambda stage: stage.parent is None,
        measured=lambda stage, evals: stage.parent is None,
    )
    assert [len(level) for level in keys(one)] == [12, 24, 24]
    assert (one.reused, one.to_train) == (4, 60)


def test_a_trained_stage_is_planned_again_only_for_what_is_not_measured():
    """The same 2 stages under two evaluations: 4 cells, 2 stages, each with both evaluations."""
    other = EVALS.model_copy(update={"pooling": "last_token"})
    runs = grid([], seeds=2)
    runs += [run.model_copy(update={"evals": other}) for run in runs]
    one = plan(
        runs,
        trained=lambda stage: True,
        measured=lambda stage, evals: stage.seed == 0 or evals.key == EVALS.key,
    )
    (group,) = one.levels[0]
    (job,) = group.jobs
    assert job.stage.seed == 1
    assert [evals.key for evals in job.evals] == [EVALS.key, other.key]
    assert (one.asked, one.stages, one.reused, one.to_train) == (4, 2, 2, 0)


def test_a_measured_stage_without_an_adapter_is_trained():
    """Its adapter was damaged or discarded; someone may want to load it."""
    one = plan(grid([]), trained=lambda stage: False, measured=lambda stage, evals: True)
    assert sizes(one) == [1]


def test_no_runs_are_no_work():
    assert plan([]) == Plan(levels=(), stages=0, asked=0, reused=0)
