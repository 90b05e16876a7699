"""What one slot's adapter looks like, and what it adds to a weight."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from raycib.model_files.adapter_targets import matches


@dataclass(frozen=True)
class LoRAShape:
    """What one slot's adapter looks like."""

    rank: int
    alpha: float | int
    """Numerator of the scale; PEFT's `lora_alpha`."""
    targets: tuple[str, ...]
    """Suffixes of module names, such as `("q_proj", "v_proj")`, matched at a dot as PEFT does."""

    @property
    def scale(self) -> float:
        """The factor before `B A`."""
        return self.alpha / self.rank

    def includes(self, module: str) -> bool:
        """Whether the slot adapts the linear layer of this full name."""
        return any(matches(module, target) for target in self.targets)


class Update(NamedTuple):
    """What an adapter adds to a frozen weight: scale * B A, all that is frozen of it included."""

    a: Float[Tensor, "rank in_dim"]
    b: Float[Tensor, "out_dim rank"]
    scale: float


def update_norm_sq(
    lora_a: Float[Tensor, "rank in_dim"], lora_b: Float[Tensor, "out_dim rank"], scale: float | int
) -> Float[Tensor, ""]:
    """Squared Frobenius norm of `scale * B A`, in fp32, without forming `B A`.

    ||B A||² = tr(Aᵀ Bᵀ B A) = sum(BᵀB * AAᵀ), two rank x rank matrices. Its gradient at B = 0
    is 0 (that of the norm itself would be NaN).
    """
    with torch.autocast(lora_a.device.type, enabled=False):
        a, b = lora_a.float(), lora_b.float()
        return scale**2 * ((b.mT @ b) * (a @ a.mT)).sum()
