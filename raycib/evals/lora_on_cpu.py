"""LoRA products for vLLM on CPU: one matrix product for each run of tokens of one adapter.

vLLM 0.29's own (`vllm/lora/ops/torch_ops/lora_ops.py`) copy the adapter's matrices once for every
token, and they take the index -1 of a token without an adapter as Python does, as the last one:
requests to the base model that share a batch with others are answered by some adapter.
"""

from collections.abc import Iterator

import torch
from torch import Tensor


def install() -> None:
    """Replace vLLM's functions in this process. Raises AttributeError where vLLM has changed."""
    from vllm.lora.punica_wrapper import punica_cpu

    for name, mine in {
        "bgmv_shrink": shrink,
        "bgmv_expand": expand,
        "bgmv_expand_slice": expand_slice,
        "sgmv_shrink": sgmv_shrink,
        "sgmv_expand": sgmv_expand,
        "sgmv_expand_slice": sgmv_expand_slice,
    }.items():
        getattr(punica_cpu, name)
        setattr(punica_cpu, name, mine)


def _runs(indices: Tensor) -> Iterator[tuple[int, slice]]:
    """(adapter's slot, its tokens) for each run of equal indices; without one, left out."""
    slots, counts = torch.unique_consecutive(indices, return_counts=True)
    start = 0
    for slot, count in zip(slots.tolist(), counts.tolist(), strict=True):
        if slot >= 0:
            yield slot, slice(start, start + count)
        start += count


def shrink(
    inputs: Tensor, a: Tensor, output: Tensor, indices: Tensor, scaling: float = 1.0
) -> None:
    """`output = scaling * inputs @ A^T`, each token with its adapter's A; 0 without one."""
    output.zero_()
    for slot, rows in _runs(indices):
        product = inputs[rows].to(output.dtype) @ _matrix(a, slot, output).T
        output[rows, : product.shape[1]] = scaling * product


def expand(
    inputs: Tensor, b: Tensor, output: Tensor, indices: Tensor, add_inputs: bool = True
) -> None:
    """`output (+)= inputs @ B^T`, as far as both are wide."""
    expand_slice(inputs, b, output, indices, 0, min(b.shape[-2], output.shape[1]), add_inputs)


def expand_slice(
    inputs: Tensor,
    b: Tensor,
    output: Tensor,
    indices: Tensor,
    slice_offset: int,
    slice_size: int,
    add_inputs: bool = True,
) -> None:
    """The same into some columns of the output (queries, keys and values share one)."""
    columns = output[:, slice_offset : slice_offset + slice_size]
    if not add_inputs:
        columns.zero_()
    for slot, rows in _runs(indices):
        product = inputs[rows].to(output.dtype) @ _matrix(b, slot, output)[:slice_size].T
        columns[rows] += product


def _matrix(stacked: Tensor, slot: int, output: Tensor) -> Tensor:
    """One adapter's matrix of a stack `(slots, [1,] rows, columns)`."""
    found = stacked[slot]
    return (found.squeeze(0) if found.dim() == 3 else found).to(output.dtype)


def _each_token(indices: Tensor, lengths: Tensor) -> Tensor:
    """One index a token, from one a sequence."""
    return torch.repeat_interleave(indices, lengths)


def sgmv_shrink(
    inputs: Tensor,
    a: Tensor,
    output: Tensor,
    starts: Tensor,
    lengths: Tensor,
    indices: Tensor,
    batches: int,
    longest: int,
    tokens: int,
    scaling: float,
) -> None:
    """`shrink` for prompts: one index a sequence."""
    shrink(inputs, a, output, _each_token(indices, lengths), scaling)


def sgmv_expand(
    inputs: Tensor,
    b: Tensor,
    output: Tensor,
    starts: Tensor,
    lengths: Tensor,
    indices: Tensor,
    batches: int,
    longest: int,
    tokens: int,
    add_inputs: bool = False,
) -> None:
    """`expand` for prompts: one index a sequence."""
    expand(inputs, b, output, _each_token(indices, lengths), add_inputs)


def sgmv_expand_slice(
    inputs: Tensor,
    b: Tensor,
    output: Tensor,
    starts: Tensor,
    lengths: Tensor,
    indices: Tensor,
    batches: int,
    longest: int,
    tokens: int,
    slice_offset: int,
    slice_size: int,
    add_inputs: bool = False,
) -> None:
    """`expand_slice` for prompts: one index a sequence."""
    every = _each_token(indices, lengths)
    expand_slice(inputs, b, output, every, slice_offset, slice_size, add_inputs)
