"""LoRA products for vLLM on CPU: one matrix product for each run of tokens of one adapter.

vLLM 0.29's own (`vllm/lora/ops/torch_ops/lora_ops.py`) copy the adapter's matrices once for every
token, and they take the index -1 of a token without an adapter as Python does, as the last one:
requests to the base model that share a batch with others are answered by some adapter.
"""

from typing import Any

import torch
from torch import Tensor
from vllm.lora.punica_wrapper import punica_cpu

Runs = list[tuple[int, slice]]
"""(adapter's slot, its tokens), for each run of them."""


class LoRAByRuns(punica_cpu.PunicaWrapperCPU):
    """Where the runs are is found once a step, not in every layer."""

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """A step begins: whose token is which."""
        super().update_metadata(*args, **kwargs)
        self._tokens, self._sampled = runs(self.token_lora_indices), runs(self.sampler_indices)

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
        start = 0
        for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            _add(self._tokens, y[:, start : start + width], x, a, b, scale)
            start += width

    def add_lora_embedding(
        self, y: Tensor, x: Tensor, lora_b_stacked: Tensor, add_inputs: bool = True, **_: Any
    ) -> None:
        """The same where A has been looked up."""
        _add(self._tokens, y.view(-1, y.shape[-1]), x, None, lora_b_stacked, 1.0)

    def add_lora_logits(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: Tensor,
        lora_b_stacked: Tensor,
        scale: float,
        **_: Any,
    ) -> None:
        """The same for the tokens after which one is chosen."""
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        _add(self._sampled, y, x, lora_a_stacked, lora_b_stacked, scale)


def install() -> None:
    """Have vLLM use it in this process. Raises AttributeError where vLLM has changed."""
    for name in ("update_metadata", "add_lora_linear", "add_lora_embedding", "add_lora_logits"):
        getattr(punica_cpu.PunicaWrapperCPU, name)
    punica_cpu.PunicaWrapperCPU = LoRAByRuns


def runs(slots: Tensor) -> Runs:
    """Those of equal slots, one a token; tokens without an adapter, which have -1, are left out."""
    found, start = [], 0
    values, counts = torch.unique_consecutive(slots, return_counts=True)
    for slot, count in zip(values.tolist(), counts.tolist(), strict=True):
        if slot >= 0:
            found.append((slot, slice(start, start + count)))
        start += count
    return found


def _add(where: Runs, y: Tensor, x: Tensor, a: Tensor | None, b: Tensor, scale: float) -> None:
    """What adapters add to `y`, as far as both are wide; between A and B it is float32."""
    width = min(b.shape[-2], y.shape[1])
    for slot, rows in where:
        inner = x[rows]
        if a is not None:
            inner = inner.float() @ _matrix(a, slot).float().T
        if scale != 1:
            inner = scale * inner
        outer = _matrix(b, slot)[:width].to(y.dtype)
        y[rows, :width] += inner.to(y.dtype) @ outer.T


def _matrix(stacked: Tensor, slot: int) -> Tensor:
    """One adapter's of a stack `(slots, [1,] rows, columns)`."""
    found = stacked[slot]
    return found.squeeze(0) if found.dim() == 3 else found
