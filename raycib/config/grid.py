"""Axes to runs: a grid is a product, written out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Any

from raycib.config import (
    EvalSpec,
    LoRASpec,
    Method,
    ModelSpec,
    PlainLoRA,
    RunSpec,
    StageSpec,
    TaskSpec,
    TrainerSpec,
)
from raycib.errors import UserError


@dataclass(frozen=True)
class Variant:
    """One row of a comparison: a method, how it is called, and what comes before the task."""

    method: Method
    """What the row stands for."""
    label: str = ""
    """What tables call it; "" leaves that to the method."""
    safety: TaskSpec | None = None
    """Safety data on which a first stage is trained, for methods that need one."""
    first: Method | None = None
    """How that first stage is trained; None: plain LoRA."""
    then: Method | None = None
    """How the task is trained after it; None: by the method itself."""
    trainer: TrainerSpec | None = None
    """Where it differs from the grid's."""
    first_trainer: TrainerSpec | None = None
    """Of the first stage, where it differs."""

    def __post_init__(self) -> None:
        if self.method.derived and self.safety is not None:
            raise ValueError(
                f"{self.method.kind} is derived from plain LoRA: it has no first stage"
            )

    def chain(self, stage: StageSpec) -> tuple[StageSpec, ...]:
        """The stages of this row, of which `stage` says the model, task, seed and settings."""
        task = _changed(stage, trainer=self.trainer or stage.trainer)
        if self.method.derived:
            source = _changed(task, method=PlainLoRA())
            if self.method.is_plain:
                return (source,)
            return (source, _changed(task, method=self.method, parent=source))
        if self.safety is None:
            return (_changed(task, method=self.then or self.method),)
        first = _changed(
            task,
            task=self.safety,
            method=self.first or PlainLoRA(),
            trainer=self.first_trainer or task.trainer,
        )
        then = self.then or self.method
        return (first, _changed(task, method=then, parent=first, fresh=True))


def _changed(stage: StageSpec, **fields: Any) -> StageSpec:
    return StageSpec.model_validate({**dict(stage), **fields})


SLOWEST = 8
"""What part of the learning rate a budget of trials goes down to."""


def trials(strengths: Sequence[float], rate: float, budget: int) -> list[tuple[float, float]]:
    """So many pairs of a strength and a learning rate, the same for every method of as many
    strengths: strengths in their order as often as each other, rates from ``rate`` down to an
    eighth in equal ratios, of which each strength gets others in turn."""
    most = max(min(3, budget), -(-budget // len(strengths)))
    parts = [SLOWEST ** (step / max(most - 1, 1)) for step in range(most)]
    rates = [float(f"{rate / part:.6g}") for part in parts]  # no key hangs on a last digit
    return [
        (strengths[number * len(strengths) // budget], rates[number % most])
        for number in range(budget)
    ]


def single_task(
    models: Iterable[ModelSpec],
    tasks: Iterable[tuple[TaskSpec, EvalSpec]],
    methods: Iterable[Method | Variant],
    seeds: Iterable[int],
    lora: LoRASpec,
    trainer: TrainerSpec,
    made_by: Sequence[StageSpec] = (),
    drawn: Mapping[tuple[str, int], TaskSpec] = MappingProxyType({}),
) -> list[RunSpec]:
    """One run for every combination; seeds vary fastest. A method is a single stage, unless it is
    derived from plain LoRA's or its variant has a first stage. `made_by` are the stages that make
    the models, where any do; `drawn` are rows of tasks that hang on the seed, by a task's key and
    the seed."""
    variants = [one if isinstance(one, Variant) else Variant(one) for one in methods]
    runs = []
    for model, (task, evals), variant, seed in product(
        list(models), list(tasks), variants, list(seeds)
    ):
        rows = drawn.get((task.key, seed), task)
        stage = StageSpec(model=model, task=rows, lora=lora, trainer=trainer, seed=seed)
        stages = variant.chain(stage)
        # A chain says by itself what it stands for only if its last stage is by that method.
        last = stages[-1].method_in_effect
        own = last == variant.method or variant.method.is_plain
        label = variant.label
        if not label and variant.safety and own and last.is_plain:
            label = f"LoRA after {variant.safety.name}"
        compared = None if own else variant.method
        alignment_stages = [
            alignment_stage for alignment_stage in made_by if alignment_stage.key == model.weights
        ]
        runs.append(
            RunSpec(
                stages=(*alignment_stages, *stages), evals=evals, compared=compared, label=label
            )
        )
    _refuse_twins(runs)
    return runs


def _refuse_twins(runs: Iterable[RunSpec]) -> None:
    """Tables know rows by their labels, or by methods and their settings: two cells of one seed
    that are called the same would be two seeds of one row."""
    found: dict[tuple[Any, ...], str] = {}
    for run in runs:
        last, strength = run.final, run.method.strength
        place = run.label or run.method, strength, last.model, last.task.name, last.seed
        if found.setdefault(place, last.key) != last.key:
            raise UserError(
                f"two rows are called {run.label or run.method.about.name!r} at strength "
                f"{strength:g}, and tables would make one of them; give one a label of its own"
            )
