"""A slot: one stage inside a group, with its own weights, optimiser, data order and memory."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from raycib.config import StageSpec, TrainerSpec
from raycib.hooks import Hooks
from raycib.hooks.types import AfterStepHook
from raycib.objectives import Objective
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
    """`useful` ones of its rows and `computed` ones with padding, in this many `steps`."""

    def __post_init__(self) -> None:
        trainer = self.stage.trainer
        # One fused kernel a step: slots are many and their tensors small.
        self.optimiser = torch.optim.AdamW(
            self.parameters.values(),
            lr=trainer.learning_rate,
            betas=trainer.betas,
            weight_decay=trainer.weight_decay,
            fused=True,
        )
        self.hook: AfterStepHook | None = None
        if self.hooks.after_step is not None:
            self.hook = self.hooks.after_step(self.parameters, self.stage.scale)

    @property
    def active(self) -> bool:
        """Whether steps remain."""
        return self.failed is None and self.step < self.stage.steps

    def update(self) -> dict[str, float]:
        """Clip this slot's own gradients and take one optimiser step; the norm before clipping,
        and what the method's after-step hook has to say."""
        norm = float(
            nn.utils.clip_grad_norm_(
                self.parameters.values(), self.stage.trainer.max_grad_norm, foreach=True
            )
        )
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.stage.trainer, self.step, self.stage.steps)
        self.optimiser.step()
        self.gradient_seen = self.gradient_seen or norm > 0
        found = {"grad_norm": norm}
        if self.hook is not None:
            found |= self.hook(self.parameters, last=self.step + 1 == self.stage.steps)
        return found

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values that resume this slot exactly."""
        tensors = {
            f"{part}.{name}": value
            for part, module in self._memories().items()
            for name, value in module.state_dict().items()
        }
        for name, parameter in self.parameters.items():
            tensors[f"adapter.{name}"] = parameter.detach()
            for field_name, value in self.optimiser.state[parameter].items():
                tensors[f"adamw.{name}.{field_name}"] = value
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
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"adapter.{name}"])
                self.optimiser.state[parameter] = {
                    field_name: tensors[f"adamw.{name}.{field_name}"].to(
                        "cpu" if field_name == "step" and not parameter.is_cuda
                        else parameter.device
                    )
                    for field_name in ("step", "exp_avg", "exp_avg_sq")
                    if f"adamw.{name}.{field_name}" in tensors  # none before the first step
                }  # fmt: skip

    def _memories(self) -> dict[str, nn.Module]:
        found: dict[str, nn.Module] = {"objective": self.objective}
        # As stored: a checkpoint of an earlier version is read by these names.
        return found | ({"follower": self.hook} if self.hook is not None else {})
