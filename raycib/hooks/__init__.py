"""The few places where a method may change what plain LoRA does. No torch here: the files beside
this one hold what hooks of the methods need of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from raycib.config import StageSpec, TaskSpec, digest
from raycib.data.chat import Encoded
from raycib.store import Store

if TYPE_CHECKING:
    from torch import Tensor

    from raycib.hooks.types import AfterStepHook, GradientTransform, Parameters
    from raycib.models.adapters import AdapterSlots, Update
    from raycib.objectives import Objective


@dataclass(frozen=True)
class AdapterContext:
    """A slot about to be trained, and what a method may need to prepare it."""

    adapters: AdapterSlots
    slot: int
    """Its place in `adapters`: initialised, or holding its parent's adapter."""
    stage: StageSpec
    store: Store
    encode: Callable[[TaskSpec], list[Encoded]]
    """Rows as tokens."""

    @property
    def dim(self) -> int:
        """Hidden size."""
        return self.adapters.model.config.hidden_size

    @property
    def updates(self) -> dict[str, Update]:
        """What is added to the aligned model, module by module; training moves these tensors."""
        return self.adapters.updates(self.slot)

    def once(
        self, kind: str, what: Mapping[str, object], compute: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Tensors that depend on `what` (plain JSON) alone: computed by whoever comes first, and
        read from the store's folder `kind` by all others."""
        from safetensors.torch import load_file, save_file

        key = digest(dict(what))
        record = self.store.get(kind, key)
        if record is None:
            found = dict(compute())

            def write(folder: Path) -> None:
                save_file(found, folder / "tensors.safetensors")

            record = self.store.put(kind, key, write, dict(what))
        (file,) = record.files
        return load_file(record.path(file))


class AuxiliaryBatch(NamedTuple):
    """Safety rows that each optimiser step sees beside the task's."""

    per_step: int
    at_most: int | None = None
    """Use only the first rows of the safety data; None uses all."""
    prompts_only: bool = False
    """Leave the responses out, where nothing reads them."""


def rows_of_task(task: Sequence[Encoded], safety: Sequence[Encoded], seed: int) -> list[Encoded]:
    """All of the task's rows and nothing else."""
    return list(task)


@dataclass(frozen=True)
class Hooks:
    """What a method changes about a stage; each default changes nothing."""

    objective: Objective | None = None
    """The loss in place of the task's cross-entropy."""
    penalty: Callable[[AdapterContext], Objective] | None = None
    """Makes a loss that is added to it, of the slot as it starts: what it keeps of that (starting
    weights, say) it keeps in buffers."""
    rows: Callable[[Sequence[Encoded], Sequence[Encoded], int], list[Encoded]] = rows_of_task
    """What is trained on, of (task rows, safety rows, seed)."""
    auxiliary: AuxiliaryBatch | None = None
    """Safety rows drawn beside the task's, for the loss or the gradient transform."""
    start: Callable[[AdapterContext], None] | None = None
    """Changes the adapter before its first step; for a derived stage that is all there is."""
    gradient_transform: GradientTransform | None = None
    """Before the gradient of a step, with passes of its own over the slot's micro-batches; returns
    what to do to the gradient once it is there, if anything."""
    after_step: Callable[[Parameters, float], AfterStepHook] | None = None
    """Of the weights and the scale of their product: goes along with the weights from their start
    on."""
