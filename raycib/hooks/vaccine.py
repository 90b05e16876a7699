"""Training under the worst small perturbation of the hidden states (Vaccine).

Deviations from the official code: gradients of earlier micro-batches are kept (it erases them);
the blocks that are perturbed are counted, so that no architecture goes silently unperturbed; the
ball is each row's own by default, so that rho means the same at any batch size (`norm="batch"` is
the official one, here over the whole effective batch whatever the micro-batches).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from raycib.hooks.types import GradientTransform, Parameters, SumOverWorkers
from raycib.models.decoder import attention_blocks
from raycib.models.step import Step

TINY = 1e-12
Perturbation = list[Tensor]
"""For each attention block, what is added to its output: (rows, seq, dim)."""


def worst_perturbation(
    rho: float, ascent_steps: int, norm: Literal["sequence", "batch"]
) -> GradientTransform:
    """Searches the perturbation by `ascent_steps` normalised steps of rho / ascent_steps up the
    task loss, and has the coming pass go through it: e_l = rho g_l / |(g_1 ... g_L)| for one step.

    Such steps cannot leave the ball of radius rho, so there is nothing to project back. The task
    loss in the history is the perturbed one.
    """

    def gradient_transform(
        steps: Sequence[Step], parameters: Parameters, sum_: SumOverWorkers
    ) -> None:
        found = [_nothing(step) for step in steps]
        for _ in range(ascent_steps):
            gradients = [ascent(step, now) for step, now in zip(steps, found, strict=True)]
            sizes = squared_norms(gradients, norm, sum_, next(iter(parameters.values())))
            for now, gradient, size in zip(found, gradients, sizes, strict=True):
                for layer, slope in zip(now, gradient, strict=True):
                    layer += rho / ascent_steps * slope / size.sqrt().clamp(min=TINY)
        for step, now in zip(steps, found, strict=True):
            step.perturb(now)

    return gradient_transform


def _nothing(step: Step) -> Perturbation:
    shape = (*step.batch.ids.shape, step.dim)
    blocks = len(attention_blocks(step.model))
    return [torch.zeros(shape, device=step.batch.ids.device) for _ in range(blocks)]


def ascent(step: Step, perturbation: Perturbation) -> Perturbation:
    """Gradient of the step's share of the task loss in each block's output."""
    leaves = [layer.clone().requires_grad_() for layer in perturbation]
    loss = step.alone(leaves).nll.sum() / step.totals.tokens
    return list(torch.autograd.grad(loss, leaves))


def squared_norms(
    gradients: Sequence[Perturbation],
    norm: Literal["sequence", "batch"],
    sum_: SumOverWorkers,
    like: Tensor,
) -> list[Tensor]:
    """For each micro-batch the squared norm over all blocks: of each row (rows, 1, 1), or of all
    rows of the effective batch, all workers' included."""
    rows = [
        torch.stack([layer.square().sum(dim=(1, 2)) for layer in one]).sum(dim=0)
        for one in gradients
    ]
    if norm == "sequence":
        return [each[:, None, None] for each in rows]
    total = sum((each.sum() for each in rows), torch.zeros((), device=like.device))
    sum_([total])
    return [total] * len(rows)
