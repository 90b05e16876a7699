"""What one optimiser step costs, counted."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from raycib.training.group import Loaded
from raycib.training.loop import take_step
from raycib.training.slot import Slot
from raycib.training.workers import Workers


def _baddbmm(_: Any, a: Any, b: Any, *args: Any, **more: Any) -> int:
    groups, rows, inner = a
    return 2 * groups * rows * inner * b[-1]


def _addmm(_: Any, a: Any, b: Any, *args: Any, **more: Any) -> int:
    return 2 * a[0] * a[1] * b[-1]


def _attention(query: Any, key: Any, value: Any, *args: Any, **more: Any) -> int:
    rows, heads, seq, dim = query
    return 2 * rows * heads * seq * key[2] * (dim + value[3])


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *args: Any, **_: Any):
    return 5 * _attention(query, key, value) // 2  # five products, one of them done again, of two


def _grouped(tokens: Any, experts: Any, *args: Any, **more: Any) -> int:
    return 2 * tokens[0] * tokens[1] * experts[2]


aten = torch.ops.aten
UNKNOWN_TO_TORCH = {
    aten.addmm_: _addmm,
    aten._grouped_mm: _grouped,
    aten.baddbmm_: _baddbmm,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Of torch 2.13's counter: it would leave out products that add in place, experts' and all
attention."""


def counter() -> FlopCounterMode:
    """Counts matrix products and attention within it."""
    return FlopCounterMode(display=False, custom_mapping=UNKNOWN_TO_TORCH)


def move(slot: Slot, loaded: Loaded, steps: int = 1, micro: int = 16) -> None:
    """Take steps, each with a gradient."""
    for _ in range(steps):
        take_step(loaded.adapters, [slot], Workers(), micro)
        assert slot.failed is None
        assert slot.history[-1]["grad_norm"] > 0, f"{slot.stage.method.kind}: no gradient"


def flops(slot: Slot, loaded: Loaded, steps: int = 1) -> int:
    """Floating-point operations of the coming steps."""
    with counter() as counted:
        move(slot, loaded, steps)
    return counted.get_total_flops()
