"""From a row's hidden states to its representation z: one vector a row, or one a token.

The paper says "last hidden layer" and leaves the position open. The choice decides what the
contrast protects, so every reading has a name.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from raycib.config import Pooling, Tokens
from raycib.models.tensors import Batch


def pool(
    hidden: Float[Tensor, "*places dim"],
    batch: Batch,
    how: Pooling,
    held: Bool[Tensor, "rows seq"] | None = None,
) -> Float[Tensor, "rows dim"]:
    """One float32 vector a row, of states of all positions (rows seq dim), or of those `held`, one
    after the other (tokens dim).

    `mean_response`: mean over the positions that predict the response (last prompt token to last
    but one token); `last_prompt_token`: the position that decides the first answer token;
    `last_token`: the row's last token; `mean_all`: all of its tokens.
    """
    match how:
        case "last_prompt_token":
            return _at(hidden, batch.prompt_lengths - 1, held).float()
        case "last_token":
            return _at(hidden, batch.lengths - 1, held).float()
        case "mean_response":
            chosen = batch.predicting
        case "mean_all":
            chosen = batch.present
    weights = chosen.float() / chosen.sum(dim=1, keepdim=True).clamp(min=1)
    if held is None:
        with torch.autocast(hidden.device.type, enabled=False):
            return torch.einsum("rsd,rs->rd", hidden.float(), weights)
    shares = hidden.float() * weights[held][:, None]
    return torch.segment_reduce(shares, "sum", lengths=held.sum(dim=1), unsafe=True)


def token_states(
    hidden: Float[Tensor, "*places dim"],
    batch: Batch,
    which: Tokens,
    held: Bool[Tensor, "rows seq"] | None = None,
) -> Float[Tensor, "tokens dim"]:
    """Hidden states at the positions that predict the response's tokens, or (`all_states`) any
    token, row after row; of states as `pool` has them."""
    chosen = batch.feature if which == "all_states" else batch.predicting
    if held is None:
        return hidden[chosen]
    return hidden[chosen[held]]


def _at(hidden: Tensor, places: Int[Tensor, " rows"], held: Tensor | None) -> Tensor:
    """The state at one place of each row."""
    rows = torch.arange(len(places), device=places.device)
    if held is None:
        return hidden[rows, places]
    return hidden[(held.flatten().cumsum(0) - 1).view_as(held)[rows, places]]
