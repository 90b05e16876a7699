"""Overlap of a new adapter with the frozen ones below it (O-LoRA, Eq. 8)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from raycib.models.step import Step
from raycib.objectives import LossTerm, LossTerms, Objective

Norm = Literal["l1", "squared"]


def overlap(
    new: Float[Tensor, "rank dim"],
    earlier: Float[Tensor, "frozen dim"],
    norm: Norm = "l1",
) -> Float[Tensor, ""]:
    """Sum over all pairs of a new row and an earlier one of |their product|, or of its square.

    For rows e3, e1/2 - e2/4 and earlier rows e1, e2 it is .75, squared .3125.
    """
    with torch.autocast(new.device.type, enabled=False):
        products = earlier.float() @ new.float().T
    return products.abs().sum() if norm == "l1" else products.square().sum()


class Orthogonality(Objective):
    """Overlap of the trained factors with all frozen ones, summed over modules; weight lambda_1.

    Raises ValueError where no frozen adapter lies below: the term would silently be 0.

    Deviations from the official code: the term counts once an optimiser step (its non-DeepSpeed
    path counts it once a micro-batch). `factor` "lora_A" is what the code does, "lora_B" what the
    paper's text means by A.
    """

    def __init__(
        self,
        lam: float,
        norm: Norm,
        factor: Literal["lora_A", "lora_B"],
        mean: bool,
    ) -> None:
        super().__init__()
        self.lam, self.factor, self.mean = lam, factor, mean
        self.norm: Norm = norm

    def forward(self, step: Step) -> LossTerms:
        found, count = [], 0
        for name, part in step.slices.items():
            if part.frozen_a is None or part.frozen_b is None:
                raise ValueError(f"O-LoRA: no earlier adapter lies below the new one at {name}")
            if self.factor == "lora_A":
                new, earlier = part.a, part.frozen_a
            else:
                new, earlier = part.b.T, part.frozen_b.T
            found.append(overlap(new, earlier, self.norm))
            count += len(new) * len(earlier)
        total = torch.stack(found).sum() / (count if self.mean else 1)
        return {"overlap": LossTerm(total * step.share, self.lam)}
