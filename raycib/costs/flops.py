"""How much arithmetic a sweep is, and how long a GPU takes for it.

LoRA costs 4 FLOPs a base weight and token: 2 forward, 2 for the gradient of the input; frozen
weights have no gradient of their own. A forward pass alone costs 2. Its own factors cost 6, as do
all weights where they are trained. What reads the first layer's input passes no gradient on, unless
the embeddings are trained. Causal attention costs 2 FLOPs a query's entry and token that it sees,
twice (scores, and their sum of values), and twice as much backward. The output head runs on scored
tokens alone, and what follows the last attention on those that answer (`raycib.models.last_layer`).
Of experts those count that read a token. To the last product what torch counts:
`tests/costs/test_flops.py`.
"""

import math
from collections.abc import Iterable

from raycib.costs.memory import (
    INTO_ATTENTION,
    OUT_OF_ATTENTION,
    OUT_OF_MLP,
    Adapter,
    last_part,
)
from raycib.costs.sizes import Sizes

NORMS_AFTER = "post_feedforward", "post_mlp"
"""What norms of an MLP's output are called (Gemma 2, OLMo 2, GLM-4)."""


def forward(sizes: Sizes, tokens: float, square_tokens: float, scored: float = 0) -> float:
    """FLOPs of a forward pass without adapters. `square_tokens` is the sum over rows of their
    squared lengths."""
    linear = 2 * sizes.decoder_parameters * tokens
    return linear + _attention(sizes, square_tokens) + _head(sizes, scored)


def train(
    sizes: Sizes,
    adapter: Adapter | None,
    tokens: float,
    square_tokens: float,
    scored: float,
    checkpointed: bool = False,
    answering: float | None = None,
) -> float:
    """FLOPs of one forward and backward pass through base, adapter and head; where no `adapter` is
    trained all weights are, and each has a gradient of its own. With `checkpointed` layers the
    decoder's forward pass is done twice, but for each layer's last product where nothing after it
    is kept (torch stops there): the MLP's, unless it is adapted or normed. Of the `tokens` so many
    are `answering`, the last one of each prompt and those of its response; None: the last layer
    reads all."""
    adapted, rank = (sizes.adapted(adapter.targets), adapter.rank) if adapter else ({}, 0)
    gradients = 2 if adapter else 4
    attention = INTO_ATTENTION | OUT_OF_ATTENTION
    once, backward = _attention(sizes, square_tokens), 2 * _attention(sizes, square_tokens)
    left_out = 0.0
    for number, linears in enumerate(sizes.layers):
        last = number == len(sizes.layers) - 1
        read = answering if last and answering is not None else tokens
        kept = any(after in name for name in sizes.norms[number] for after in NORMS_AFTER)
        if experts := sizes.routed[number]:
            once += 2 * (experts + sizes.choosing) * read
            backward += gradients * (experts + sizes.choosing) * read
        for name, shape in linears.items():
            base, own = math.prod(shape), rank * sum(shape) * (name in adapted)
            kind = last_part(name)
            ours = tokens if kind in attention else read
            once += 2 * (base + own) * ours
            if kind in OUT_OF_MLP and not (own or kept or experts):
                left_out += 2 * base * ours
            backward += (gradients * base + 4 * own) * ours
            if adapter and number == 0 and kind in INTO_ATTENTION:
                backward -= 2 * (base + rank * shape[1] * (name in adapted)) * ours
    head = (1 + gradients / 2) * _head(sizes, scored)
    return once + checkpointed * (once - left_out) + backward + head


def answer(sizes: Sizes, prompts: Iterable[int], answer_tokens: int) -> float:
    """FLOPs of an answer of `answer_tokens` to each prompt: both go through the decoder once, and
    each token that is said through the head."""
    whole = [prompt + answer_tokens for prompt in prompts]
    said = answer_tokens * len(whole)
    return forward(sizes, sum(whole), sum(one**2 for one in whole), said)


def _attention(sizes: Sizes, square_tokens: float) -> float:
    """Of all layers, of which every token sees half of its row on average."""
    return 2 * 2 * sizes.queries * len(sizes.layers) * square_tokens / 2


def _head(sizes: Sizes, scored: float) -> float:
    return 2 * sizes.width * sizes.vocabulary * scored
