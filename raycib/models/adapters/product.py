"""Frozen linear layers that share an input, with the low-rank updates of its rows' slots.

Forward and backward are written out, so that nothing of the size of the activations is made twice:
products add to their results in place. What lies between A and B is kept as (rank, tokens): of
products with a small rank, CPUs do those with few long rows about three times faster.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Block(NamedTuple):
    """Slots of one shape on equally many tokens each: `scale * B A` of each as one product."""

    tokens: slice
    layers: Sequence[int]
    """The adapted ones of the linear layers."""
    a: Float[Tensor, "slots ranks in_dim"]
    """Of all adapted layers, rank above rank."""
    b: Sequence[Float[Tensor, "slots rank out_dim"]]
    """Of each, transposed."""
    scale: float
    leaves: Sequence[Tensor] = ()
    """What gradients are of, where each parameter has its own: the only slot's A (rank, in_dim) of
    each layer, then its B (out_dim, rank) of each."""
    gradients: Sequence[Tensor] = ()
    """Else the memory of those of `a` and each of `b`, to which a backward pass adds."""


def adapted(
    bases: Sequence[nn.Linear],
    blocks: Sequence[Block],
    x: Float[Tensor, "*any in_dim"],
    anchor: Tensor,
) -> tuple[Tensor, ...]:
    """What each of `bases` makes of `x`, with the updates; in the dtype of the base's output, so
    bf16 under bf16 autocast. Gradients reach `x` and the leaves of `blocks`, or are added to their
    `gradients`: then `anchor`, which wants one and gets none, has the backward pass come by."""
    if torch.is_grad_enabled() and any(
        one.requires_grad for base in bases for one in base.parameters()
    ):
        raise RuntimeError(
            "the base is frozen under its slots: its gradient is known within "
            "`adapters.disabled()` alone"
        )
    leaves = [leaf for block in blocks for leaf in block.leaves]
    return _Adapted.apply(bases, blocks, x, anchor, *leaves)  # type: ignore[return-value]


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        bases: Sequence[nn.Linear],
        blocks: Sequence[Block],
        x: Tensor,
        *_: Tensor,
    ) -> tuple[Tensor, ...]:
        flat = x.reshape(-1, x.shape[-1])
        outputs = [F.linear(flat, base.weight, base.bias) for base in bases]
        flat = flat.to(outputs[0].dtype)
        kept = [flat]
        for block in blocks:
            a, *b = (factor.to(flat.dtype) for factor in (block.a, *block.b))
            h = torch.bmm(a, _own(block, flat).mT).mul_(block.scale)
            for layer, factor, part in zip(block.layers, b, _parts(h, b), strict=True):
                _own(block, outputs[layer]).baddbmm_(part.mT, factor)
            kept += [h, a, *b]
        ctx.bases, ctx.blocks, ctx.shape = bases, blocks, x.shape
        ctx.save_for_backward(*kept)
        return tuple(y.view(*x.shape[:-1], -1) for y in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        flat, *kept = ctx.saved_tensors
        slopes = tuple(slope.reshape(len(flat), -1) for slope in slopes)
        dx = None
        if ctx.needs_input_grad[2]:
            for base, slope in zip(ctx.bases, slopes, strict=True):
                weight = base.weight.to(slope.dtype)
                dx = slope @ weight if dx is None else dx.addmm_(slope, weight)
        # Not where `torch.autograd.grad` asks for something else, as for a gradient in states.
        adds = torch._C._will_engine_execute_node(ctx.next_functions[1][0])  # the anchor's
        found: list[Tensor] = []
        for block in ctx.blocks:
            h, a, *rest = kept
            b, kept = rest[: len(block.b)], rest[len(block.b) :]
            own = [_own(block, slopes[layer]) for layer in block.layers]
            dh = [torch.bmm(factor, slope.mT) for factor, slope in zip(b, own, strict=True)]
            between = (torch.cat(dh, dim=1) if len(dh) > 1 else dh[0]).mul_(block.scale)
            if dx is not None:
                _own(block, dx).baddbmm_(between.mT, a)
            pairs = [(between, _own(block, flat)), *zip(_parts(h, b), own, strict=True)]
            if block.leaves:
                (a_slope, *b_slopes) = (torch.bmm(*pair)[0] for pair in pairs)
                found += [*a_slope.split([len(one) for one in b_slopes]), *(s.mT for s in b_slopes)]
            for gradient, pair in zip(block.gradients if adds else (), pairs, strict=False):
                if gradient.dtype == flat.dtype:
                    gradient.baddbmm_(*pair)
                else:
                    gradient.add_(torch.bmm(*pair))
        return (None, None, None if dx is None else dx.view(ctx.shape), None, *found)


def _own(block: Block, flat: Float[Tensor, "all dim"]) -> Float[Tensor, "slots tokens dim"]:
    """The block's tokens, slot by slot."""
    return flat[block.tokens].view(block.a.shape[0], -1, flat.shape[-1])


def _parts(h: Float[Tensor, "slots ranks tokens"], b: Sequence[Tensor]) -> Sequence[Tensor]:
    """What enters each B."""
    return (
        torch.split_with_sizes(h, [factor.shape[1] for factor in b], dim=1) if len(b) > 1 else [h]
    )
