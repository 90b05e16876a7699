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
    hidden: Float[Tensor, "*places dim"], batch: Batch, how: Pooling
) -> Float[Tensor, "rows dim"]:
    """One float32 vector a row, of states with padding (rows seq dim) or without (tokens dim).

    `mean_response`: mean over the positions that predict the response (last prompt token to last
    but one token); `last_prompt_token`: the position that decides the first answer token;
    `last_token`: the row's last token; `mean_all`: all of its tokens.
    """
    match how:
        case "last_prompt_token":
            return _at(hidden, batch, batch.prompt_lengths - 1).float()
        case "last_token":
            return _at(hidden, batch, batch.lengths - 1).float()
        case "mean_response":
            chosen = batch.predicting
        case "mean_all":
            chosen = batch.present
    if hidden.dim() == 3:
        weights = chosen.float() / chosen.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.einsum("rsd,rs->rd", hidden.float(), weights)
    counts = chosen.sum(dim=1)
    parts = _where(hidden, batch, chosen).float().split(counts.tolist())
    sums = torch.stack([part.sum(dim=0) for part in parts])
    return sums / counts[:, None].clamp(min=1)


def token_states(
    hidden: Float[Tensor, "*places dim"], batch: Batch, which: Tokens
) -> Float[Tensor, "tokens dim"]:
    """Hidden states at the positions that predict the response's tokens, or (`all_states`) any
    token, row after row."""
    return _where(hidden, batch, batch.feature if which == "all_states" else batch.predicting)


def _where(hidden: Tensor, batch: Batch, chosen: Bool[Tensor, "rows seq"]) -> Tensor:
    """States at the `chosen` positions, none of which is padding."""
    return hidden[chosen if hidden.dim() == 3 else chosen[batch.present]]


def _at(hidden: Tensor, batch: Batch, places: Int[Tensor, " rows"]) -> Tensor:
    """The state at one place of each row."""
    if hidden.dim() == 3:
        return hidden[torch.arange(len(hidden), device=hidden.device), places]
    return hidden[batch.lengths.cumsum(0) - batch.lengths + places]
