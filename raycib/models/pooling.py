"""From a row's hidden states to its representation z: one vector a row, or one a token.

The paper says "last hidden layer" and leaves the position open. The choice decides what the
contrast protects, so every reading has a name.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from raycib.config import Pooling, Tokens
from raycib.models.tensors import Batch


def pool(
    hidden: Float[Tensor, "rows seq dim"], batch: Batch, how: Pooling
) -> Float[Tensor, "rows dim"]:
    """One float32 vector a row.

    `mean_response`: mean over the positions that predict the response (last prompt token to last
    but one token); `last_prompt_token`: the position that decides the first answer token;
    `last_token`: the row's last token; `mean_all`: all of its tokens.
    """
    rows = torch.arange(len(hidden), device=hidden.device)
    match how:
        case "last_prompt_token":
            return hidden[rows, batch.prompt_lengths - 1].float()
        case "last_token":
            return hidden[rows, batch.lengths - 1].float()
        case "mean_response":
            chosen = batch.predicting
        case "mean_all":
            chosen = torch.arange(hidden.shape[1], device=hidden.device) < batch.lengths[:, None]
    weights = chosen.float() / chosen.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.einsum("rsd,rs->rd", hidden.float(), weights)


def token_states(
    hidden: Float[Tensor, "rows seq dim"], batch: Batch, which: Tokens
) -> Float[Tensor, "tokens dim"]:
    """Hidden states at the positions that predict the response's tokens, or (`all_states`) any
    token, row after row."""
    return hidden[batch.feature if which == "all_states" else batch.predicting]
