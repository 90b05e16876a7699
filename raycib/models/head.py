"""What a model's output head makes of hidden states, a value for each token: few tokens' logits are
held at a time."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from raycib.costs.memory import HEAD_TENSORS, LOGITS_AT_ONCE
from raycib.models.decoder import own_logits

Head = Callable[[Tensor], Tensor]
"""From hidden states to float32 logits."""


def with_logits(
    model: Any,
    function: Callable[..., Tensor],
    states: Float[Tensor, "tokens dim"],
    *beside: Tensor,
    tensors: int = HEAD_TENSORS,
) -> Float[Tensor, " tokens"]:
    """`function(head, states, *beside)`, a value for each token of its own state and what is beside
    it, by chunks of tokens, so that so many `tensors` of the logits' size fit into memory at once.
    Gradients reach `states`, and a head that is trained, for which the backward pass computes the
    chunks again."""

    def head(states: Tensor) -> Tensor:
        return own_logits(model, states).float()

    output = model.get_output_embeddings()
    at_once = max(1, LOGITS_AT_ONCE * HEAD_TENSORS // tensors // output.out_features)
    if len(states) <= at_once:
        return function(head, states, *beside)
    if torch.is_grad_enabled() and not output.weight.requires_grad:
        return _Once.apply(function, head, at_once, states, *beside)  # type: ignore[return-value]
    chunks = zip(*(values.split(at_once) for values in (states, *beside)), strict=True)
    return torch.cat([checkpoint(function, head, *part, use_reentrant=False) for part in chunks])  # type: ignore[misc]


class _Once(torch.autograd.Function):
    """Logits are made once: while a chunk's are there, the gradient of each token's value is, too.
    The backward pass has but to weight them, since no value depends on another token's state."""

    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[..., Tensor],
        head: Head,
        at_once: int,
        states: Tensor,
        *beside: Tensor,
    ) -> Tensor:
        found, slopes = [], []
        for part, *others in zip(
            *(values.split(at_once) for values in (states, *beside)), strict=True
        ):
            with torch.enable_grad():
                own = part.detach().requires_grad_()
                values = function(head, own, *others)
                slopes += torch.autograd.grad(values.sum(), own)
            found.append(values.detach())
        ctx.save_for_backward(torch.cat(slopes))
        ctx.others = len(beside)
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        (slopes,) = ctx.saved_tensors
        own = (slopes * weights[:, None]).to(slopes.dtype)
        return (None, None, None, own, *[None] * ctx.others)


def token_loss(
    model: Any, states: Float[Tensor, "tokens dim"], labels: Int[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    """-log p of each token, in nats; only tokens that are scored ever meet the output head."""

    def loss(head: Head, part: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(head(part), target, reduction="none")

    return with_logits(model, loss, states, labels)
