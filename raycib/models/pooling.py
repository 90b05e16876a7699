"""From a row's hidden states to its representation z: one vector a row, or one a token.

The paper says "last hidden layer" and leaves the position open. The choice decides what the
contrast protects, so every reading has a name.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from raycib.config import Pooling, Tokens
from raycib.models.tensors import Batch, sent


def pool(
    hidden: Float[Tensor, "*places dim"],
    batch: Batch,
    how: Pooling,
    held: Bool[Tensor, "rows seq"] | None = None,
) -> Float[Tensor, "rows dim"]:
    """One float32 vector a row, of states of all positions (rows seq dim), or of those `held`, one
    after the other (tokens dim). `batch` and `held` lie on the host: to find places there, nothing
    waits for the states.

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
            return torch.einsum("rsd,rs->rd", hidden.float(), sent(weights, hidden.device))
    shares = hidden.float() * sent(weights[held], hidden.device)[:, None]
    lengths = sent(held.sum(dim=1), hidden.device)
    return torch.segment_reduce(shares, "sum", lengths=lengths, unsafe=True)


def token_states(
    hidden: Float[Tensor, "*places dim"],
    batch: Batch,
    which: Tokens,
    held: Bool[Tensor, "rows seq"] | None = None,
) -> Float[Tensor, "tokens dim"]:
    """Hidden states at the positions that predict the response's tokens, or (`all_states`) any
    token, row after row; of states as `pool` has them."""
    chosen = batch.feature if which == "all_states" else batch.predicting
    places = chosen.flatten() if held is None else chosen[held]
    return states_at(hidden, places.nonzero()[:, 0])


def states_at(hidden: Tensor, places: Int[Tensor, " places"]) -> Float[Tensor, "places dim"]:
    """The states at these places of all, in the order in which they lie."""
    return hidden.flatten(0, -2).index_select(0, sent(places, hidden.device))


def held_at(places: Int[Tensor, " places"], held: Tensor | None) -> Int[Tensor, " places"]:
    """Of places among all positions: where their states lie."""
    return places if held is None else (held.flatten().cumsum(0) - 1)[places]


def _at(hidden: Tensor, places: Int[Tensor, " rows"], held: Tensor | None) -> Tensor:
    """The state at one place of each row."""
    width = hidden.shape[1] if held is None else held.shape[1]
    return states_at(hidden, held_at(torch.arange(len(places)) * width + places, held))
