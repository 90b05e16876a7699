"""Small grids, and what is planned of them."""

from collections.abc import Callable
from itertools import permutations

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
from raycib.config.plan import Plan, make_plan
from raycib.methods.cib import CIB
from raycib.methods.safe_lora import SafeLoRA

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


def keys(one: Plan) -> list[list[str]]:
    """Stage keys, level by level."""
    return [[job.stage.key for group in level for job in group.jobs] for level in one.levels]


def sizes(one: Plan) -> list[int]:
    return [len(group.jobs) for level in one.levels for group in level]
