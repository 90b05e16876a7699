"""Axes to runs: a grid is a product, written out."""

from collections.abc import Iterable
from itertools import product

from raycib.spec import (
    EvalSpec,
    LoRASpec,
    MethodSpec,
    ModelSpec,
    RunSpec,
    StageSpec,
    TaskSpec,
    TrainerSpec,
)


def single_task(
    models: Iterable[ModelSpec],
    tasks: Iterable[tuple[TaskSpec, EvalSpec]],
    methods: Iterable[MethodSpec],
    seeds: Iterable[int],
    lora: LoRASpec,
    trainer: TrainerSpec,
) -> list[RunSpec]:
    """One run for every combination, each a single stage; seeds vary fastest."""
    return [
        RunSpec(
            stages=(
                StageSpec(
                    model=model, task=task, method=method, lora=lora, trainer=trainer, seed=seed
                ),
            ),
            evals=evals,
        )
        for model, (task, evals), method, seed in product(
            list(models), list(tasks), list(methods), list(seeds)
        )
    ]
