"""Rows laid end to end on one token axis: no padding, and attention that stays within each row.

Everything else in a decoder works token by token. Its attention runs as the model would run it on
the rows of each length: the same implementation, with the masks that it makes for them (causal,
sliding or in chunks). So a row has the numbers that it has in a batch of rows of its length.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "raycib_rows"
"""Of this attention among those of transformers."""
KNOWS_ROWS = ("flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")
"""Implementations that keep rows apart by themselves, told by their positions."""


class _Packed(NamedTuple):
    """The rows that now go through a model."""

    lengths: tuple[int, ...]
    implementation: str
    """Of attention, the model's own."""


_now: ContextVar[_Packed] = ContextVar("packed rows")


class _Masks(NamedTuple):
    """What the attention of one kind of layer is given as its mask."""

    rows: _Packed
    of: Callable[[int], Tensor | None]
    """The model's own mask for rows of a length."""


@contextmanager
def rows_apart(model: Any, lengths: Sequence[int]) -> Iterator[None]:
    """Within it, attention of the model's decoder stays within rows of these `lengths`, in tokens,
    which lie one after the other."""
    config = model.get_decoder().config
    own = config._attn_implementation
    if own in KNOWS_ROWS:
        yield
        return
    token = _now.set(_Packed(tuple(lengths), own))
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = own
        _now.reset(token)


def told(model: Any, lengths: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    """What a decoder is told of rows that lie one after the other: places that begin anew in each.
    That all tokens count keeps transformers from masks for the whole axis."""
    places = torch.cat([torch.arange(length) for length in lengths])[None].to(device)
    if model.get_decoder().config._attn_implementation in KNOWS_ROWS:
        return {"position_ids": places}
    return {"position_ids": places, "attention_mask": torch.ones_like(places)}


def _masks(
    batch_size: int, q_length: int, kv_length: int, attention_mask: Any = None, **options: Any
) -> _Masks:
    """Stands for a mask: those of rows, made as they are asked for."""
    rows = _now.get()
    own = ALL_MASK_ATTENTION_FUNCTIONS[rows.implementation]

    @cache
    def of(length: int) -> Tensor | None:
        return own(batch_size=1, q_length=length, kv_length=length, attention_mask=None, **options)

    return _Masks(rows, of)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """Attention of (1, heads, tokens, head_dim) row by row, rows of one length at once."""
    if not isinstance(attention_mask, _Masks):
        raise TypeError(f"{type(module).__name__} does not say which rows its tokens are of")
    rows = attention_mask.rows
    eager: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    own: Any = ALL_ATTENTION_FUNCTIONS.get_interface(rows.implementation, eager)
    runs = [(length, len(list(run))) for length, run in groupby(rows.lengths)]
    sizes = [length * count for length, count in runs]
    found = []
    parts = (tensor[0].split(sizes, dim=1) for tensor in (query, key, value))
    for (length, count), *part in zip(runs, *parts, strict=True):
        each = [one.unflatten(1, (count, length)).transpose(0, 1) for one in part]
        states, _ = own(module, *each, attention_mask.of(length), **options)
        found.append(states.flatten(0, 1))
    return torch.cat(found)[None], None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _masks)
