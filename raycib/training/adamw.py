"""AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) of several slots in one call: what each
slot's own would do, to the last bit."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from raycib.config import TrainerSpec

EPSILON = 1e-8
"""Torch's and the literature's own."""


class Moments(NamedTuple):
    """What AdamW remembers of a parameter, by the names that checkpoints have."""

    step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor

    @classmethod
    def of(cls, parameter: Tensor) -> "Moments":
        """Before the first step."""
        zero = torch.zeros((), device=parameter.device)
        return cls(zero, torch.zeros_like(parameter), torch.zeros_like(parameter))


class Own(NamedTuple):
    """One slot's part of a step."""

    trainer: TrainerSpec
    learning_rate: float
    parameters: Sequence[nn.Parameter]
    moments: Sequence[Moments]


@torch.no_grad()
def step(slots: Sequence[Own]) -> None:
    """An optimiser step of each. Those with the same settings now are moved together."""
    alike: dict[tuple[float, ...], list[tuple[Tensor, Tensor, Moments]]] = defaultdict(list)
    for own in slots:
        settings = (own.learning_rate, *own.trainer.betas, own.trainer.weight_decay)
        alike[settings] += [
            (parameter, parameter.grad, moments)
            for parameter, moments in zip(own.parameters, own.moments, strict=True)
            if parameter.grad is not None
        ]
    for (learning_rate, beta1, beta2, weight_decay), moved in alike.items():
        parameters, gradients, moments = map(list, zip(*moved, strict=True))
        steps, averages, squares = map(list, zip(*moments, strict=True))
        adamw(
            parameters, gradients, averages, squares, [], steps,
            fused=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=learning_rate,
            weight_decay=weight_decay, eps=EPSILON, maximize=False,
        )  # fmt: skip
