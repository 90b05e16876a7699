"""LoRA with lanes: several adapters on one frozen base; PEFT format in and out; and the
model itself in the place of an adapter, where all of its weights are trained."""

from raycib.adapters.lanes import LaneAdapters
from raycib.adapters.linear import LoRAShape, Update, update_norm_sq
from raycib.adapters.whole import WholeModel

__all__ = ["LaneAdapters", "LoRAShape", "Update", "WholeModel", "update_norm_sq"]
