"""LoRA with lanes: several adapters on one frozen base; PEFT format in and out."""

from raycib.adapters.lanes import LaneAdapters
from raycib.adapters.linear import LoRAShape, update_norm_sq

__all__ = ["LaneAdapters", "LoRAShape", "update_norm_sq"]
