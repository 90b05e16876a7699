"""A grid becomes its unique stages, in levels, in groups that an interruption does not change."""

from collections.abc import Callable
from itertools import permutations

import pytest
from specs import EVALS, MODEL, TASKS

from raycib.config import (
    EvalSpec,
    LoRASpec,
    Method,
    PlainLoRA,
    RunSpec,
    StageSpec,
    TaskSpec,
    TrainerSpec,
)
from raycib.config.grid import Variant, single_task
from raycib.config.plan import MOST_SLOTS, Plan, make_plan, waits
from raycib.methods.cib import CIB
from raycib.methods.o_lora import OLoRA
from raycib.methods.safe_lora import SafeLoRA
from raycib.methods.vaccine import Vaccine

SAFETY = TaskSpec(name="refusals", source="", rows="e" * 64, num_rows=20)
SAFE_LORA = SafeLoRA(base=MODEL.model_copy(update={"weights": "b" * 64}))
TRAINER = TrainerSpec(epochs=2)


def grid(lams: list[float], seeds: int = 1, models: int = 1) -> list[RunSpec]:
    """Plain LoRA and CIB at every strength, on one task."""
    return single_task(
        models=[MODEL.model_copy(update={"weights": str(n) * 64}) for n in range(models)],
        tasks=[(TASKS[0], EVALS)],
        methods=[PlainLoRA(), *(CIB(lam=lam) for lam in lams)],
        seeds=range(seeds),
        lora=LoRASpec(),
        trainer=TrainerSpec(),
    )


def rows_of(*methods: Method | Variant, seeds: int = 1) -> list[RunSpec]:
    """A comparison of these methods on one task."""
    tasks = [(TASKS[0], EVALS)]
    return single_task([MODEL], tasks, methods, range(seeds), LoRASpec(), TRAINER)


def orders(tasks: list[TaskSpec]) -> list[RunSpec]:
    """One run for every order of `tasks`, each stage going on from the one before."""
    runs = []
    for order in permutations(tasks):
        chain: list[StageSpec] = []
        for task in order:
            chain.append(StageSpec(model=MODEL, task=task, parent=chain[-1] if chain else None))
        runs.append(RunSpec(stages=tuple(chain), evals=EVALS))
    return runs


def plan(
    runs: list[RunSpec],
    trained: Callable[[StageSpec], bool] = lambda stage: False,
    measured: Callable[[StageSpec, EvalSpec], bool] = lambda stage, evals: False,
    groups_at_once: int = 1,
    group_size: int | None = None,
) -> Plan:
    return make_plan(runs, trained, measured, groups_at_once, group_size)


def test_a_group_is_called_by_what_it_holds() -> None:
    (group,) = plan(grid([1.0, 0.5], seeds=2)).levels[0]
    assert group.said == "LoRA; CIB 1, 0.5; seeds 0, 1"
    one = group.model_copy(update={"jobs": group.jobs[:1]})
    assert one.said == "LoRA; seed 0"


def keys(one: Plan) -> list[list[str]]:
    """Stage keys, level by level."""
    return [[job.stage.key for group in level for job in group.jobs] for level in one.levels]


def sizes(one: Plan) -> list[int]:
    return [len(group.jobs) for level in one.levels for group in level]


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


# Rows of a comparison that are more than one stage, or less


def test_a_method_without_needs_is_a_single_stage():
    (run,) = rows_of(CIB())
    (stage,) = run.stages
    assert (stage.method, stage.parent, stage.fresh) == (CIB(), None, False)
    assert (stage.trainer, run.method, run.compared) == (TRAINER, CIB(), None)


def test_safe_lora_shares_the_training_of_plain_lora():
    """LoRA and two thresholds are three cells and one training: the other two are derived."""
    other = SAFE_LORA.model_copy(update={"threshold": 0.4})
    runs = rows_of(PlainLoRA(), SAFE_LORA, other)
    assert [[stage.method.kind for stage in run.stages] for run in runs] == [
        ["lora"],
        ["lora", "safe_lora"],
        ["lora", "safe_lora"],
    ]
    (lora,) = runs[0].stages
    assert all(run.stages[0].key == lora.key for run in runs)
    assert all(run.final.parent == lora for run in runs[1:])
    one = plan(runs)
    assert (one.asked, one.stages, one.shared) == (5, 3, 2)
    assert keys(one) == [[lora.key], [run.final.key for run in runs[1:]]]
    steps = sum(job.stage.steps for level in one.levels for group in level for job in group.jobs)
    assert steps == lora.steps == 4
    assert waits(one.levels[0]) == []
    (why,) = waits(one.levels[1])
    assert why.startswith("safe_lora is derived from its parent")


@pytest.mark.parametrize("off", [{"threshold": -1.0}, {"choose": "number", "number": 0}])
def test_safe_lora_at_zero_strength_is_the_stage_of_plain_lora(off: dict[str, object]):
    lora, zero = rows_of(PlainLoRA(), SAFE_LORA.model_copy(update=off))
    assert zero.stages == lora.stages
    assert zero.key == lora.key
    assert zero.method == PlainLoRA()
    assert len(keys(plan([lora, zero]))[0]) == 1


def test_o_lora_with_nothing_below_is_the_stage_of_plain_lora():
    """As in a first task: one training, and a cell that still says whose it is."""
    lora, own = rows_of(PlainLoRA(), OLoRA())
    assert own.final.key == lora.final.key
    assert own.key == lora.key
    assert (lora.method, own.method) == (PlainLoRA(), OLoRA())
    one = plan([lora, own])
    assert (one.asked, one.stages) == (2, 1)


def test_o_lora_after_safety_data_is_trained_on_top_of_that_stage():
    """And shares it with plain LoRA trained on top of it too, which is its strength zero."""
    plain, own, zero = rows_of(
        *(Variant(method, safety=SAFETY) for method in (PlainLoRA(), OLoRA(), OLoRA(lam=0)))
    )
    first, second = own.stages
    assert (first.task, first.method, first.parent, first.fresh) == (
        SAFETY,
        PlainLoRA(),
        None,
        False,
    )
    assert (second.task, second.method_in_effect, second.parent, second.fresh) == (
        TASKS[0],
        OLoRA(),
        first,
        True,
    )
    assert plain.stages[0] == first
    assert zero.final.key == plain.final.key != second.key
    one = plan([plain, own, zero])
    assert (one.asked, one.stages) == (6, 3)
    assert keys(one) == [[first.key], [plain.final.key, second.key]]
    assert second.exported_rank == 64
    assert {why.partition(" ")[0] for why in waits(one.levels[1])} == {"lora", "o_lora"}


def test_a_first_stage_may_be_by_another_method_with_settings_of_its_own():
    """Vaccine as published: an alignment stage on safety data, then plain LoRA on the task. The
    cell stands for Vaccine, though its last stage is plain LoRA's."""
    official = Vaccine(rho=2.0, ascent_steps=1, norm="batch")
    tuned, slow = TrainerSpec(learning_rate=1e-3), TrainerSpec(learning_rate=1e-5)
    variant = Variant(
        official, "Vaccine (official)", SAFETY, official, PlainLoRA(), trainer=slow,
        first_trainer=tuned,
    )  # fmt: skip
    (run,) = rows_of(variant)
    first, second = run.stages
    assert (first.method, first.task, first.trainer) == (official, SAFETY, tuned)
    assert (second.method, second.task, second.trainer) == (PlainLoRA(), TASKS[0], slow)
    assert second.parent == first
    assert second.fresh
    assert (run.method, run.compared, run.label) == (official, official, "Vaccine (official)")
    assert first.steps == 1


def test_what_a_cell_is_called_and_stands_for_is_no_part_of_its_key():
    one, other = rows_of(Variant(CIB(), "ours"), CIB())
    assert one.label == "ours"
    assert one.key == other.key
    assert plan([one, other]).stages == 1


def test_chains_are_made_for_every_seed():
    runs = rows_of(SAFE_LORA, Variant(OLoRA(), safety=SAFETY), seeds=3)
    assert [run.final.seed for run in runs] == [0, 1, 2, 0, 1, 2]
    for run in runs:
        assert {stage.seed for stage in run.stages} == {run.final.seed}
    assert [len(level) for level in keys(plan(runs))] == [6, 6]


def test_whatever_goes_on_from_a_parent_waits_for_it():
    levels = plan(orders(TASKS[:2])).levels
    assert waits(levels[0]) == []
    assert waits(levels[1]) == ["lora goes on from its parent's adapter"]
