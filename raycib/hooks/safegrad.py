"""Gradient surgery: the task may not undo what holds the safety data in place (SafeGrad).

Deviations from the paper: written from its abstract. The conflict is judged on the adapter's whole
gradient; lam, the weight with which the safety gradient is added, is our reading of how the two
are joined.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from raycib.hooks.types import Correct, GradientTransform, Parameters, SumOverWorkers
from raycib.models.step import Step
from raycib.objectives.kl import reference_divergence

ROUNDING = 1e-6
"""Nats: a divergence below it is that of a model that has not moved, and its gradient is noise."""


def remove_conflict(gradient: Sequence[Tensor], guide: Sequence[Tensor]) -> list[Tensor]:
    """The gradient without its part against `guide`, both taken as one long vector:
    g - (g . s / |s|²) s where g . s < 0, else g. (1, -1) and (0, 1) give (1, 0)."""
    product = _total([(g * s).sum() for g, s in zip(gradient, guide, strict=True)])
    if product >= 0:
        return list(gradient)
    share = product / _total([s.square().sum() for s in guide])
    return [g - share * s for g, s in zip(gradient, guide, strict=True)]


def _total(parts: Sequence[Tensor]) -> float:
    """Their sum, for which a GPU is waited for once."""
    return sum(torch.stack(list(parts)).tolist())


def surgery(lam: float) -> GradientTransform:
    """Looks up the gradient of KL(aligned, own) on the step's safety rows, takes the conflict with
    it out of the task's gradient, and adds it with weight `lam`."""

    def gradient_transform(
        steps: Sequence[Step], parameters: Parameters, sum_: SumOverWorkers
    ) -> Correct | None:
        weights = list(parameters.values())
        guide = [torch.zeros_like(weight) for weight in weights]
        divergence = torch.zeros((), device=weights[0].device)
        for step in steps:
            if step.safety is None:
                continue
            value = reference_divergence(step.safety.alone())
            divergence += value.detach()
            for total, part in zip(guide, torch.autograd.grad(value, weights), strict=True):
                total += part
        sum_([*guide, divergence])
        if float(divergence) < ROUNDING:
            return None

        def correct(parameters: Parameters) -> None:
            gradient = [p.grad for p in parameters.values() if p.grad is not None]
            for own, clean, pull in zip(
                gradient, remove_conflict(gradient, guide), guide, strict=True
            ):
                own.copy_(clean + lam * pull)

        return correct

    return gradient_transform
