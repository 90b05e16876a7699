"""LoRA with slots: several adapters on one frozen base; PEFT format in and out; and the
model itself in the place of an adapter, where all of its weights are trained."""

from raycib.models.adapters.shape import LoRAShape, Update, update_norm_sq
from raycib.models.adapters.slots import AdapterSlots
from raycib.models.adapters.whole import RoundedModel, WholeModel

__all__ = ["AdapterSlots", "LoRAShape", "RoundedModel", "Update", "WholeModel", "update_norm_sq"]
