"""What is asked of the loss landscape around the aligned model."""

from typing import ClassVar, Literal

from raycib.spec.base import Spec
from raycib.spec.data import ModelSpec, RowsSpec
from raycib.spec.stage import LoRASpec

RADII = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Distances from the aligned model, as Frobenius norms of the update."""
LANDSCAPE_ROWS = 64
"""Rows that its loss is a mean over."""


class LandscapeSpec(Spec):
    """Constants of the Trade-offs paper's assumptions, of a model's loss on some rows."""

    key_name: ClassVar[str] = "LandscapeSpec"
    what: Literal["lipschitz", "smoothness"]
    """Theorem 3's local Lipschitz constant, or Theorem 4's gradient norm and smoothness."""
    model: ModelSpec
    rows: RowsSpec
    lora: LoRASpec
    """The updates that are tried: adapters of this shape."""
    radii: tuple[float, ...] = RADII
