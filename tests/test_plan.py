"""A grid becomes its unique stages, in waves, in packs that an interruption does not change."""

from collections.abc import Callable
from itertools import permutations

import pytest

from raycib.grid import single_task
from raycib.plan import MOST_LANES, Plan, make_plan
from raycib.spec import (
    CIB,
    EvalSpec,
    LoRASpec,
    ModelSpec,
    PlainLoRA,
    RowsSpec,
    RunSpec,
    StageSpec,
    TaskSpec,
    TrainerSpec,
)

MODEL = ModelSpec(source="here", weights="w" * 64, tokenizer="t" * 64)
TASKS = [TaskSpec(name=f"task {n}", source="", rows=str(n) * 64, num_rows=100) for n in range(4)]
ROWS = RowsSpec(name="asked", source="", rows="a" * 64, num_rows=10)
EVALS = EvalSpec(harmful=ROWS, held_out=ROWS)


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
    packs_at_once: int = 1,
    pack_size: int | None = None,
) -> Plan:
    return make_plan(runs, trained, measured, packs_at_once, pack_size)


def keys(one: Plan) -> list[list[str]]:
    """Stage keys, wave by wave."""
    return [[job.stage.key for pack in wave for job in pack.jobs] for wave in one.waves]


def sizes(one: Plan) -> list[int]:
    return [len(pack.jobs) for wave in one.waves for pack in wave]


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
    (wave,) = keys(one)
    assert len(wave) == len(set(wave)) == 3


def test_24_orders_of_4_tasks_are_64_stages():
    """Orders that begin alike share their beginning: 4 + 4*3 + 4*3*2 + 4*3*2*1 = 64, not 96."""
    one = plan(orders(TASKS))
    assert (one.asked, one.stages, one.shared) == (96, 64, 32)
    assert [len(wave) for wave in keys(one)] == [4, 12, 24, 24]
    assert len({key for wave in keys(one) for key in wave}) == 64


def test_a_parent_is_in_an_earlier_wave():
    done: set[str] = set()
    for wave in plan(orders(TASKS), pack_size=5).waves:
        stages = [job.stage for pack in wave for job in pack.jobs]
        assert all(stage.parent is None or stage.parent.key in done for stage in stages)
        done |= {stage.key for stage in stages}
    assert len(done) == 64


def test_only_one_base_to_a_pack():
    one = plan(grid([1.0, 2.0], seeds=3, models=3), packs_at_once=2)
    bases = [{job.stage.model.key for job in pack.jobs} for wave in one.waves for pack in wave]
    assert all(len(base) == 1 for base in bases)
    assert len({key for base in bases for key in base}) == 3


@pytest.mark.parametrize(
    ("stages", "packs_at_once", "pack_size", "expected"),
    [
        (10, 1, None, [10]),
        (10, 3, None, [4, 3, 3]),
        (10, 4, None, [3, 3, 2, 2]),
        (3, 8, None, [1, 1, 1]),
        (40, 1, None, [14, 13, 13]),  # more than MOST_LANES = 16 each would be 2 packs of 20
        (10, 0, None, [10]),
        (10, 1, 1, [1] * 10),
        (10, 1, 4, [4, 3, 3]),
        (40, 1, 20, [20, 20]),  # asked for by name: larger than automatic packs
    ],
)
def test_packs_are_of_nearly_equal_size(
    stages: int, packs_at_once: int, pack_size: int | None, expected: list[int]
):
    assert MOST_LANES == 16
    runs = grid([], seeds=stages)
    one = plan(runs, packs_at_once=packs_at_once, pack_size=pack_size)
    assert sizes(one) == expected


@pytest.mark.parametrize("pack_size", [None, 1, 3])
@pytest.mark.parametrize("done", [0, 1, 7, 19])
def test_a_pack_keeps_its_name_when_some_of_its_stages_are_done(pack_size: int | None, done: int):
    """Its checkpoint is found by that name, so the rest must not be packed anew."""
    runs = grid([1.0, 2.0, 3.0], seeds=5)
    before = plan(runs, packs_at_once=3, pack_size=pack_size)
    finished = {run.final.key for run in runs[:done]}
    after = plan(
        runs,
        trained=lambda stage: stage.key in finished,
        measured=lambda stage, evals: stage.key in finished,
        packs_at_once=3,
        pack_size=pack_size,
    )
    homes = {job.stage.key: pack.name for pack in before.waves[0] for job in pack.jobs}
    left = {job.stage.key: pack.name for pack in after.waves[0] for job in pack.jobs}
    assert left == {key: home for key, home in homes.items() if key not in finished}
    assert (after.stages, after.reused, after.to_train) == (20, done, 20 - done)


def test_the_same_grid_gives_the_same_plan():
    runs = grid([1.0, 2.0], seeds=4)
    assert plan(runs, packs_at_once=3) == plan(list(runs), packs_at_once=3)
    names = [pack.name for pack in plan(runs, packs_at_once=3).waves[0]]
    assert len(names) == len(set(names)) == 3


def test_a_finished_grid_is_no_work():
    one = plan(grid([1.0], seeds=3), trained=lambda s: True, measured=lambda s, e: True)
    assert (one.waves, one.stages, one.reused, one.to_train) == ((), 6, 6, 0)


def test_a_finished_wave_leaves_the_later_ones():
    one = plan(
        orders(TASKS),
        trained=lambda stage: stage.parent is None,
        measured=lambda stage, evals: stage.parent is None,
    )
    assert [len(wave) for wave in keys(one)] == [12, 24, 24]
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
    (pack,) = one.waves[0]
    (job,) = pack.jobs
    assert job.stage.seed == 1
    assert [evals.key for evals in job.evals] == [EVALS.key, other.key]
    assert (one.asked, one.stages, one.reused, one.to_train) == (4, 2, 2, 0)


def test_a_measured_stage_without_an_adapter_is_trained():
    """Its adapter was damaged or discarded; someone may want to load it."""
    one = plan(grid([]), trained=lambda stage: False, measured=lambda stage, evals: True)
    assert sizes(one) == [1]


def test_no_runs_are_no_work():
    assert plan([]) == Plan(waves=(), stages=0, asked=0, reused=0)
