"""Rows laid end to end on one token axis: no padding, and attention that stays within each row.

Everything else in a decoder works token by token. Its attention runs as the model would run it on
rows of about one length, padded on the right: the same implementation, with the masks that it makes
for them (causal, sliding or in chunks). So a row has the numbers that it has in a padded batch.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from raycib.models.tensors import sent

NAME = "raycib_rows"
"""Of this attention among those of transformers."""
KNOWS_ROWS = ("flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")
"""Implementations that keep rows apart by themselves, told by their positions."""


def width(length: int) -> int:
    """Tokens to which attention pads a row, so that rows of many lengths are few products: at most
    a quarter more than it has, or 8."""
    step = max(8, 2 ** (length.bit_length() - 3))
    return -(-length // step) * step


class _Packed:
    """The rows that now go through a model."""

    def __init__(self, lengths: Sequence[int], implementation: str, device: torch.device) -> None:
        self.implementation = implementation
        """Of attention, the model's own."""
        alike = len(set(lengths)) == 1
        self._widths = tuple(lengths if alike else map(width, lengths))
        self._lengths, self._device = tuple(lengths), device
        self.counts = sorted(Counter(self._widths).items())
        """Rows of each width."""

    @property
    def places(self) -> "_Places | None":
        """Where tokens lie as attention sees them. None where they do already."""
        return _places(self._lengths, self._widths, self._device)


class _Places(NamedTuple):
    there: Tensor
    """Of each place in rows of one width together: the token that is there."""
    back: Tensor
    """Where each token is among them."""


@lru_cache(maxsize=4)  # a pass that computes its layers twice asks for each of them
def _places(
    lengths: tuple[int, ...], widths: tuple[int, ...], device: torch.device
) -> _Places | None:
    order = sorted(range(len(lengths)), key=widths.__getitem__)
    if order == list(range(len(order))) and lengths == widths:
        return None
    starts = [0, *accumulate(lengths)]
    there, back = [], [0] * starts[-1]
    for row in order:
        start, length = starts[row], lengths[row]
        back[start : start + length] = range(len(there), len(there) + length)
        there += range(start, start + length)
        there += [start] * (widths[row] - length)  # any token: none sees the ones after it
    return _Places(*(sent(torch.tensor(places), device) for places in (there, back)))


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
    token = _now.set(_Packed(lengths, own, model.device))
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = own
        _now.reset(token)


def told(model: Any, lengths: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    """What a decoder is told of rows that lie one after the other: places that begin anew in each.
    That all tokens count keeps transformers from masks for the whole axis."""
    places = sent(torch.cat([torch.arange(length) for length in lengths])[None], device)
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
    """Attention of (1, heads, tokens, head_dim) row by row, all rows of one length at once."""
    if not isinstance(attention_mask, _Masks):
        raise TypeError(f"{type(module).__name__} does not say which rows its tokens are of")
    rows = attention_mask.rows
    eager: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    own: Any = ALL_ATTENTION_FUNCTIONS.get_interface(rows.implementation, eager)
    sizes = [width * count for width, count in rows.counts]
    found = []
    tokens = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    parts = (_laid(one, rows.places).split(sizes) for one in tokens)
    for (width, count), *part in zip(rows.counts, *parts, strict=True):
        each = [one.unflatten(0, (count, width)).transpose(1, 2) for one in part]
        states, _ = own(module, *each, attention_mask.of(width), **options)
        found.append(states.flatten(0, 1))
    together = torch.cat(found) if len(found) > 1 else found[0]
    if rows.places is not None:
        together = _Taken.apply(together, *rows.places)
    return together[None], None  # type: ignore[index]


def _laid(states: Tensor, places: _Places | None) -> Tensor:
    return states if places is None else _Laid.apply(states, *places)  # type: ignore[return-value]


class _Laid(torch.autograd.Function):
    """Tokens in rows with padding. Torch would add up gradients in an order in which padding, that
    has none, is added to."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.back = back
        return states.index_select(0, there)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return slope.index_select(0, ctx.back), None, None


class _Taken(torch.autograd.Function):
    """Tokens out of such rows."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.size, ctx.back = len(there), back
        return states.index_select(0, back)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        whole = slope.new_zeros(ctx.size, *slope.shape[1:])
        return whole.index_copy_(0, ctx.back, slope), None, None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _masks)
