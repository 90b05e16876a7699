"""The mean sequence loss of rows, its gradient in lanes, and in the aligned model's own weights."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from raycib.adapters import LaneAdapters
from raycib.data.chat import Encoded
from raycib.evals.passes import lane_steps

TOKENS_AT_ONCE = 4096
"""Fewer than where no gradient is wanted: their graph is held."""


def mean_loss(
    adapters: LaneAdapters, lanes: Sequence[int], data: Sequence[Encoded]
) -> dict[int, Float[Tensor, ""]]:
    """Each lane's mean over `data` of -log p(answer | prompt), in nats an answer, in float64.

    Differentiable; the graphs of all rows are then held at once.
    """
    parts = list(_parts(adapters, lanes, data))
    return {lane: torch.stack([part[lane] for part in parts]).sum() for lane in lanes}


def dense_gradient(
    adapters: LaneAdapters, data: Sequence[Encoded]
) -> tuple[float, dict[str, Tensor]]:
    """L(theta_s) in nats, and its gradient with respect to each adapted layer's weight, in fp32."""
    weights = {name: module.base.weight for name, module in adapters.modules_of(0).items()}
    before = [weight.requires_grad for weight in weights.values()]
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
        with adapters.disabled():
            losses, slopes = slopes_of(adapters, [0], data, list(weights.values()))
    finally:
        for weight, flag in zip(weights.values(), before, strict=True):
            weight.requires_grad_(flag)
    return float(losses[0]), dict(zip(weights, slopes, strict=True))


def slopes_of(
    adapters: LaneAdapters, lanes: Sequence[int], data: Sequence[Encoded], wanted: Sequence[Tensor]
) -> tuple[dict[int, Tensor], list[Tensor]]:
    """`mean_loss`, detached, and the gradient of its sum over lanes in the `wanted` tensors, in
    fp32; only one batch's graph is held at a time."""
    losses: dict[int, Tensor] = {}
    slopes = [torch.zeros_like(tensor, dtype=torch.float32) for tensor in wanted]
    with torch.enable_grad():
        for part in _parts(adapters, lanes, data):
            whole = torch.stack(list(part.values())).sum()
            for slope, found in zip(slopes, torch.autograd.grad(whole, wanted), strict=True):
                slope += found
            losses = {lane: losses.get(lane, 0) + loss.detach() for lane, loss in part.items()}
    return losses, slopes


def _parts(
    adapters: LaneAdapters, lanes: Sequence[int], data: Sequence[Encoded]
) -> Iterator[dict[int, Tensor]]:
    """Summands of `mean_loss`, a batch at a time."""
    for _, steps in lane_steps(adapters, lanes, data, TOKENS_AT_ONCE):
        yield {lane: step.nll.sum(1).double().sum() / len(data) for lane, step in steps.items()}
