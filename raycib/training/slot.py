"""A slot: one stage inside a group, with its own weights, optimiser, data order and memory."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from raycib.config import StageSpec, TrainerSpec
from raycib.hooks import Hooks
from raycib.hooks.types import AfterStepHook
from raycib.objectives import Objective
from raycib.training import adamw
from raycib.training.adamw import Moments
from raycib.training.batches import BatchSampler


def learning_rate(trainer: TrainerSpec, step: int, steps: int) -> float:
    """Of optimiser step `step` (from 0): linear warm-up, then the schedule."""
    if step < trainer.warmup_steps:
        return trainer.learning_rate * (step + 1) / trainer.warmup_steps
    done = (step - trainer.warmup_steps) / max(1, steps - trainer.warmup_steps)
    match trainer.schedule:
        case "constant":
            factor = 1.0
        case "linear":
            factor = 1 - done
        case "cosine":
            factor = 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * done))))
    return trainer.learning_rate * factor


class Norm(NamedTuple):
    """Of a slot's gradients, before they are clipped."""

    size: float
    kept: float
    """What clipping multiplies them by, at most 1."""


@dataclass
class Slot:
    """Mutable state of one stage's training; everything a checkpoint must hold is here."""

    index: int
    """Its place in the adapters."""
    stage: StageSpec
    hooks: Hooks
    objective: Objective
    """The loss, with its memory."""
    parameters: dict[str, nn.Parameter]
    trained: Sequence[nn.Parameter]
    """The same, each or all as one."""
    task: BatchSampler
    safety: BatchSampler | None = None
    """Rows that the method sees beside the task's."""
    step: int = 0
    """Optimiser steps taken."""
    gradient_seen: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    """Per step: every term unweighted, in nats, and the gradient norm before clipping."""
    failed: str | None = None
    tokens: Counter[str] = field(default_factory=Counter)
    """`useful` ones of its rows and `computed` ones with their padding, if any, in this many
    `steps`."""

    def __post_init__(self) -> None:
        self.moments = [Moments.of(one) for one in self.trained]
        self.hook: AfterStepHook | None = None
        if self.hooks.after_step is not None:
            self.hook = self.hooks.after_step(self.parameters, self.stage.scale)

    @property
    def active(self) -> bool:
        """Whether steps remain."""
        return self.failed is None and self.step < self.stage.steps

    @property
    def own(self) -> adamw.Own:
        """Its part of the coming optimiser step."""
        rate = learning_rate(self.stage.trainer, self.step, self.stage.steps)
        return adamw.Own(self.stage.trainer, rate, self.trained, self.moments)

    @property
    def gradients(self) -> list[Tensor]:
        """Of what is trained."""
        return [one.grad for one in self.trained if one.grad is not None]

    def clip(self, norm: Norm) -> None:
        """Make its gradients as large as they may be."""
        if norm.kept != 1:
            torch._foreach_mul_(self.gradients, norm.kept)

    def moved(self, norm: Norm) -> dict[str, float]:
        """After an optimiser step: the norm before clipping, and what the method's after-step hook
        has to say."""
        self.gradient_seen = self.gradient_seen or norm.size > 0
        found = {"grad_norm": norm.size}
        if self.hook is not None:
            found |= self.hook(self.parameters, last=self.step + 1 == self.stage.steps)
        return found

    def ended(self) -> AbstractContextManager[None]:
        """With the adapter as it would be if its last step had been the stage's."""
        return self.hook.ended(self.parameters) if self.hook else nullcontext()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values that resume this slot exactly."""
        tensors = {
            f"{part}.{name}": value
            for part, module in self._memories().items()
            for name, value in module.state_dict().items()
        }
        for name, parameter, whole, moments in self._places():
            tensors[f"adapter.{name}"] = parameter.detach()
            for kind, value in moments._asdict().items():
                part = _part(value, parameter, whole) if value.dim() else value.clone()
                tensors[f"adamw.{name}.{kind}"] = part
        plain = {
            "step": self.step,
            "gradient_seen": self.gradient_seen,
            "history": self.history,
            "failed": self.failed,
            "tokens": dict(self.tokens),
        }
        return {name: tensor.contiguous() for name, tensor in tensors.items()}, plain

    def restore(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Undo everything since `state` was taken."""
        self.step, self.gradient_seen = plain["step"], plain["gradient_seen"]
        self.history, self.failed = list(plain["history"]), plain["failed"]
        self.tokens = Counter(plain.get("tokens", {}))  # an earlier version counted none
        for part, module in self._memories().items():
            head = f"{part}."
            memory = {k.removeprefix(head): v for k, v in tensors.items() if k.startswith(head)}
            module.load_state_dict(memory)
        with torch.no_grad():
            for name, parameter, whole, moments in self._places():
                parameter.copy_(tensors[f"adapter.{name}"])
                for kind, value in moments._asdict().items():
                    stored = tensors.get(f"adamw.{name}.{kind}")
                    part = _part(value, parameter, whole) if value.dim() else value
                    part.copy_(stored) if stored is not None else part.zero_()

    def _places(self) -> Iterator[tuple[str, nn.Parameter, nn.Parameter, Moments]]:
        """Name and parameter, and of what the optimiser moves, that which holds it."""
        wholes = cycle(zip(self.trained, self.moments, strict=True))
        for (name, parameter), (whole, moments) in zip(
            self.parameters.items(), wholes, strict=False
        ):
            yield name, parameter, whole, moments

    def _memories(self) -> dict[str, nn.Module]:
        found: dict[str, nn.Module] = {"objective": self.objective}
        # As stored: a checkpoint of an earlier version is read by these names.
        return found | ({"follower": self.hook} if self.hook is not None else {})


def gradient_norms(
    slots: Sequence[Slot], total: Callable[[Tensor], Tensor] = lambda own: own
) -> list[Norm]:
    """Of each slot's gradients, and what torch's `clip_grad_norm_` would multiply them by; `total`
    makes the norms of all workers' parts, of those of one's own."""
    norm = torch.linalg.vector_norm
    norms = torch.stack([norm(torch.stack(list(map(norm, slot.gradients)))) for slot in slots])
    norms = total(norms).cpu()  # here the host waits for all that a step has done so far
    limits = norms.new_tensor([slot.stage.trainer.max_grad_norm for slot in slots])
    shares = (limits / (norms + 1e-6)).clamp(max=1)
    return [Norm(*pair) for pair in torch.stack([norms, shares], dim=1).tolist()]


def update(slots: Sequence[Slot], norms: Sequence[Norm]) -> None:
    """Clip each slot's own gradients and take an optimiser step of each."""
    for slot, norm in zip(slots, norms, strict=True):
        slot.clip(norm)
    adamw.step([slot.own for slot in slots])


def _part(value: Tensor, parameter: Tensor, whole: Tensor) -> Tensor:
    """Of a tensor like `whole`: what lies where `parameter` lies in it."""
    start = parameter.storage_offset() - whole.storage_offset()
    return value.as_strided(parameter.shape, parameter.stride(), value.storage_offset() + start)
