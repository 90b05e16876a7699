"""A base whose linear layers are held in 4 bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314).

transformers and bitsandbytes make the 4 bits; what is computed with them is said here. The layer of
bitsandbytes 0.50 has several ways through it (forward, backward, of one token, in evaluation mode),
and on a CPU they differ: with AVX512-BF16 the last rounds scales to bfloat16, and where rows are no
multiple of 64 weights the others take scales of other blocks. Here the weight that the 4 bits stand
for is the same in every pass, on every machine.
"""

import json
import logging
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from raycib.config import Quantization


def held_in(quantization: Quantization | None, dtype: str) -> dict[str, Any]:
    """What `from_pretrained` is told beside the `dtype`. The CPU quantises, wherever the base goes
    then, so that every machine has the same bits."""
    if quantization is None:
        return {}
    from transformers import BitsAndBytesConfig

    # It misses a kernel that is not used here.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        bnb_4bit_use_double_quant=False,
    )
    return {"quantization_config": config, "device_map": {"": "cpu"}}


def retrieval(model: Any) -> dict[str, Any] | None:
    """What PEFT's `auto_mapping` says of a quantised base, how to get it: its class, and what
    `from_pretrained` was told."""
    if (told := getattr(model.config, "quantization_config", None)) is None:
        return None
    named = {"base_model_class": type(model).__name__, "parent_library": "transformers"}
    return {**named, "quantization_config": json.loads(told.to_json_string(use_diff=True))}


def unpack_when_read(model: nn.Module) -> None:
    """Have every layer that bitsandbytes quantised be a `QuantizedLinear`."""
    from bitsandbytes.nn import Linear4bit

    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit):
            model.set_submodule(name, QuantizedLinear(module))


class QuantizedLinear(nn.Linear):
    """A frozen linear layer that keeps 4 bits of each weight; `weight` is made of them whenever it
    is read."""

    packed: Tensor
    absmax: Float[Tensor, " blocks"]

    def __init__(self, quantized: Any) -> None:
        """Takes the bits of a `bitsandbytes.nn.Linear4bit`."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = quantized.in_features, quantized.out_features
        state = quantized.weight.quant_state
        if state.nested or state.shape != (self.out_features, self.in_features):
            raise ValueError(f"a weight of {tuple(state.shape)}, quantised twice: {state.nested}")
        # Blocks go on from row to row, which bitsandbytes' way on a CPU forgets: all as one row.
        flat = (1, self.out_features * self.in_features)
        self._how = state.blocksize, state.quant_type, flat, state.dtype
        self.register_buffer("packed", quantized.weight.data.as_subclass(Tensor))
        self.register_buffer("absmax", state.absmax)
        self.bias = quantized.bias

    @property
    def weight(self) -> Float[Tensor, "out_dim in_dim"]:  # type: ignore[override]
        """What the 4 bits stand for, in the model's dtype."""
        whole = torch.ops.bitsandbytes.dequantize_4bit(self.packed, self.absmax, *self._how)
        return whole.view(self.out_features, self.in_features)

    def forward(self, x: Float[Tensor, "*any in_dim"]) -> Float[Tensor, "*any out_dim"]:  # type: ignore[override]
        return _Product.apply(x, self)  # type: ignore[return-value]


class _Product(torch.autograd.Function):
    """Of an input and a frozen layer, whose weight is unpacked once more in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.weight, layer.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return slope @ ctx.layer.weight.to(slope.dtype), None
