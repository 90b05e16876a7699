"""Where invariances are measured: a small model, rows and a store; and how two slots are told
apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing
from safetensors.torch import load_file
from torch import Tensor

from raycib.config import LoRASpec, Method, ModelSpec, StageSpec, TaskSpec, TrainerSpec
from raycib.config.grid import Variant
from raycib.config.plan import AdapterGroup, Job
from raycib.models.adapters import AdapterSlots
from raycib.store import Store
from raycib.store.kinds import ADAPTER_FILE, STAGES
from raycib.training.group import (
    Loaded,
    open_slot,
    open_slots,
    shapes_of,
    train_group,
    validate,
)
from raycib.training.loop import train
from raycib.training.slot import Slot
from raycib.training.workers import Workers

ALONE = Workers()
CPU = torch.device("cpu")
TRAINER = TrainerSpec(learning_rate=5e-3, batch_size=16, warmup_steps=2, epochs=2)
"""48 rows in batches of 16, twice: 6 steps that move far enough to be told apart."""


@dataclass
class Bench:
    """A small model with rows, and a store for what the checks share. The base stays in memory, as
    in a worker: a check has it loaded once, however often it starts anew."""

    model: ModelSpec
    base: ModelSpec
    """What stands for the model before alignment."""
    task: TaskSpec
    """48 rows."""
    safety: TaskSpec
    root: Path
    """An empty folder."""
    _loaded: Loaded | None = None

    @cached_property
    def store(self) -> Store:
        """References, directions and parents that the slots of all checks share."""
        return Store(self.root / "shared")

    def chain(
        self, method: Method, stacked: bool = False, **overrides: Any
    ) -> tuple[StageSpec, ...]:
        """The stages of a method, as a grid makes them: one, or two where it is derived from plain
        LoRA, or trained (also if `stacked`) on top of an adapter for the safety data."""
        settings: dict[str, Any] = {"lora": LoRASpec(rank=4, alpha=8), "trainer": TRAINER}
        stage = StageSpec(model=self.model, **{"task": self.task, **settings, **overrides})
        return Variant(method, safety=self.safety if stacked or method.stacked else None).chain(
            stage
        )

    def load(self, stages: Sequence[StageSpec]) -> Loaded:
        """The base with a new slot for every stage. Earlier slots keep their numbers and are no
        part of it any more."""
        self._loaded = open_slots(self.model, shapes_of(stages), CPU, before=self._loaded)
        return self._loaded

    def open(
        self, stages: Sequence[StageSpec], cached: bool = True
    ) -> tuple[AdapterSlots, list[Slot]]:
        """A slot for every stage, before its first step; parents are trained first."""
        self.train([stage.parent for stage in stages if stage.parent], self.store)
        loaded = self.load(stages)
        return loaded.adapters, [
            open_slot(n, stage, loaded, self.store, cached) for n, stage in enumerate(stages)
        ]

    def train(self, stages: Sequence[StageSpec], store: Store, micro: int = 16) -> None:
        """Train the stages that `store` lacks, one after the other."""
        for stage in stages:
            if store.get(STAGES, stage.key) is None:
                group = AdapterGroup(name=f"pack-{stage.short}", jobs=(Job(stage=stage, evals=()),))
                failed = train_group(group, self.load([stage]), store, ALONE, micro, 1000)
                if failed:
                    raise ValueError(*failed.values())

    def trained(
        self, stages: Sequence[StageSpec], micro: int = 16, cached: bool = True
    ) -> list[Slot]:
        """Slots at their last step."""
        adapters, slots = self.open(stages, cached)
        train(adapters, slots, ALONE, micro)
        for slot in slots:
            if why := validate(slot):
                raise ValueError(f"{slot.stage.method.kind}: {why}")
        return slots


def adapter_of(store: Store, stage: StageSpec) -> Tensor:
    """The factors of a trained stage, one after the other."""
    record = store.get(STAGES, stage.key)
    assert record is not None
    tensors = load_file(record.path(ADAPTER_FILE))
    return torch.cat([tensors[name].reshape(-1) for name in sorted(tensors)])


def weights(slot: Slot) -> Tensor:
    """All that is trained."""
    return torch.cat([p.detach().reshape(-1) for p in slot.parameters.values()])


def gradients(slot: Slot) -> Tensor:
    """As the optimiser saw them: clipped."""
    return torch.cat([p.grad.reshape(-1) for p in slot.parameters.values() if p.grad is not None])


def distance(one: Tensor, other: Tensor) -> float:
    """|one - other| / |other|; infinite where they are of different sizes."""
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).norm() / other.norm())


def losses(slot: Slot) -> Tensor:
    """Every term of every step; 0 where there was none."""
    terms = sorted({name for entry in slot.history for name in entry} - {"step", "grad_norm"})
    return torch.tensor([[entry.get(term, 0.0) for term in terms] for entry in slot.history])


def largest(slot: Slot, other: Slot) -> float:
    """Of the relative differences of all losses of all steps; of absolute ones below 1 nat."""
    if not slot.history:
        return 0.0
    size = losses(other).abs().clamp(min=1)
    return float(((losses(slot) - losses(other)).abs() / size).max())


def unequal(one: dict[str, Tensor], other: dict[str, Tensor]) -> int:
    """Tensors that differ in any byte (two zeros of different sign do)."""
    return sum(
        name not in one
        or name not in other
        or one[name].numpy().tobytes() != other[name].numpy().tobytes()
        for name in one.keys() | other.keys()
    )


def world_bench(root: Path) -> tuple[Bench, TaskSpec]:
    """The embedded world's aligned model with 48 rows of a task and 12 refusals; and 33 rows."""
    from raycib.data.rows import describe_task
    from raycib.model_files import describe

    many, few = (
        describe_task("open", f"world:open.train#first-{count}", max_length=128)
        for count in (48, 33)
    )
    safety = describe_task("refusals", "world:harmful.proxy#first-12", max_length=128)
    return Bench(describe("world:aligned"), describe("world:base"), many, safety, root), few
