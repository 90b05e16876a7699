"""Random tensors, rows of the tiny model and a step on them, for what is derived by hand."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raycib.config import TaskSpec
from raycib.data.chat import Encoded
from raycib.data.rows import describe_task
from raycib.models.adapters import AdapterSlots
from raycib.models.group_step import GroupStep
from raycib.models.step import Step, steps_of
from raycib.models.tensors import Totals, collate, together

CPU = torch.device("cpu")
SAFETY = TaskSpec(name="s", source="nowhere", rows="r" * 64, num_rows=3)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def value_of(terms: dict[str, Any], name: str) -> float:
    return float(terms[name].value.detach())


ROWS = [Encoded((2, 3, 4), (5, 6, 7)), Encoded((9,), (8, 7, 6, 5, 4)), Encoded((1, 2), (3, 9))]


def step_on(adapters: AdapterSlots, *examples: int, auxiliary: tuple[int, ...] = ()) -> Step:
    def totals(chosen: tuple[int, ...]) -> dict[int, Totals]:
        return {0: Totals(len(chosen), sum(len(ROWS[i].response) for i in chosen))}

    safety = None
    if auxiliary:
        safety = GroupStep(
            adapters, *together({0: collate(ROWS, auxiliary)}), totals(auxiliary), {}
        )
    group = GroupStep(
        adapters, *together({0: collate(ROWS, examples)}), totals(examples), {}, safety
    )
    return steps_of(group)[0]


def task_in(folder: Path, name: str = "task") -> TaskSpec:
    return describe_task(name, str(folder / f"{name}.jsonl"), 64)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def random_rows(count: int, dim: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
