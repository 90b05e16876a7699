"""The mean sequence loss of rows, its gradient in slots, and in the aligned model's own weights."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from raycib.data.chat import Encoded
from raycib.evals.passes import slot_steps
from raycib.models.adapters import AdapterSlots

TOKENS_AT_ONCE = 4096
"""Fewer than where no gradient is wanted: their graph is held."""


def mean_loss(
    adapters: AdapterSlots, slots: Sequence[int], data: Sequence[Encoded]
) -> dict[int, Float[Tensor, ""]]:
    """Each slot's mean over `data` of -log p(answer | prompt), in nats an answer, in float64.

    Differentiable; the graphs of all rows are then held at once.
    """
    parts = list(_parts(adapters, slots, data))
    return {slot: torch.stack([part[slot] for part in parts]).sum() for slot in slots}


def dense_gradient(
    adapters: AdapterSlots, data: Sequence[Encoded]
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
    adapters: AdapterSlots, slots: Sequence[int], data: Sequence[Encoded], wanted: Sequence[Tensor]
) -> tuple[dict[int, Tensor], list[Tensor]]:
    """`mean_loss`, detached, and the gradient of its sum over slots in the `wanted` tensors, in
    fp32; only one batch's graph is held at a time."""
    losses: dict[int, Tensor] = {}
    slopes = [torch.zeros_like(tensor, dtype=torch.float32) for tensor in wanted]
    with torch.enable_grad():
        for part in _parts(adapters, slots, data):
            whole = torch.stack(list(part.values())).sum()
            for slope, found in zip(slopes, torch.autograd.grad(whole, wanted), strict=True):
                slope += found
            losses = {slot: losses.get(slot, 0) + loss.detach() for slot, loss in part.items()}
    return losses, slopes


def _parts(
    adapters: AdapterSlots, slots: Sequence[int], data: Sequence[Encoded]
) -> Iterator[dict[int, Tensor]]:
    """Summands of `mean_loss`, a batch at a time."""
    for _, steps in slot_steps(adapters, slots, data, TOKENS_AT_ONCE):
        yield {slot: step.nll.sum(1).double().sum() / len(data) for slot, step in steps.items()}
