"""LoRA products for vLLM on CPU: one matrix product for all tokens of one adapter.

vLLM 0.29's own (`vllm/lora/ops/torch_ops/lora_ops.py`) copy the adapter's matrices once for every
token, and they take the index -1 of a token without an adapter as Python does, as the last one:
requests to the base model that share a batch with others are answered by some adapter.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from vllm.lora.punica_wrapper import punica_cpu

Runs = list[tuple[int, slice]]
"""(adapter's slot, its tokens), for each run of them."""


class Order(NamedTuple):
    """Tokens brought together by adapter: vLLM puts a new sequence where one has ended, so that
    those of an adapter soon lie here and there."""

    runs: Runs
    """One for each adapter, among tokens in this order."""
    there: Tensor | None
    """Tokens in this order; None where they lie so by themselves."""
    back: Tensor | None
    """Where each token has gone."""


class LoRAByAdapter(punica_cpu.PunicaWrapperCPU):
    """Whose tokens are where is found once a step, not in every layer."""

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """A step begins: whose token is which."""
        super().update_metadata(*args, **kwargs)
        self._tokens = order(self.token_lora_indices)

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """`y += scale * x @ A^T @ B^T`, each token with its adapter's; queries, keys and values,
        whose adapters differ, share the columns of one `y`."""
        x, start = _ordered(self._tokens, x), 0
        for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            _add(self._tokens, y[:, start : start + width], x, a, b, scale)
            start += width


def install() -> None:
    """Have vLLM use it in this process. Raises AttributeError where vLLM has changed."""
    for name in ("update_metadata", "add_lora_linear"):
        getattr(punica_cpu.PunicaWrapperCPU, name)
    punica_cpu.PunicaWrapperCPU = LoRAByAdapter


def runs(slots: Tensor) -> Runs:
    """Those of equal slots, one a token; tokens without an adapter, which have -1, are left out."""
    found, start = [], 0
    values, counts = torch.unique_consecutive(slots, return_counts=True)
    for slot, count in zip(values.tolist(), counts.tolist(), strict=True):
        if slot >= 0:
            found.append((slot, slice(start, start + count)))
        start += count
    return found


def order(slots: Tensor) -> Order:
    """Of tokens with these slots."""
    found = runs(slots)
    if len({slot for slot, _ in found}) == len(found):
        return Order(found, None, None)
    there = torch.argsort(slots, stable=True)
    return Order(runs(slots[there]), there, torch.argsort(there))


def _ordered(where: Order, x: Tensor) -> Tensor:
    return x if where.there is None else x[where.there]


def _add(where: Order, y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> None:
    """What adapters add to `y`; `x` is in order. Between A and B it is float32."""
    added = y.new_zeros(y.shape)
    for slot, rows in where.runs:
        inner = x[rows].float() @ _matrix(a, slot).float().T
        if scale != 1:
            inner = scale * inner
        torch.mm(inner.to(y.dtype), _matrix(b, slot).to(y.dtype).T, out=added[rows])
    y += added if where.back is None else added[where.back]


def _matrix(stacked: Tensor, slot: int) -> Tensor:
    """One adapter's of a stack `(slots, [1,] rows, columns)`."""
    found = stacked[slot]
    return found.squeeze(0) if found.dim() == 3 else found
