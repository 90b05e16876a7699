"""The weights kept in a ball around the aligned model (Trade-offs paper, Case II, Eq. 5).

The aligned model is the one under the adapter, so the distance is ||scale * B A||, over all modules
together or for each. Scaling every B by the same factor is the exact Euclidean projection of the
update onto the ball: it keeps the rank, and is computed through rank x rank matrices.
"""

import math
from typing import Literal

import torch

from raycib.hooks.types import AfterStepHook, Parameters
from raycib.models.adapters import update_norm_sq


class Ball(AfterStepHook):
    """B <- min(1, epsilon / ||scale * B A||) B after every step. Adam's moments are left alone."""

    def __init__(self, scale: float, epsilon: float, scope: Literal["global", "module"]) -> None:
        super().__init__()
        self.scale, self.epsilon, self.scope = scale, epsilon, scope

    @torch.no_grad()
    def forward(self, parameters: Parameters, last: bool) -> dict[str, float]:
        """Projects, and says by which factor (the mean over modules where each has its own)."""
        names = [name.removesuffix(".lora_A") for name in parameters if name.endswith(".lora_A")]
        norms_sq = torch.stack(
            [
                update_norm_sq(parameters[f"{n}.lora_A"], parameters[f"{n}.lora_B"], self.scale)
                for n in names
            ]
        ).tolist()
        if self.scope == "global":
            norms_sq = [sum(norms_sq)] * len(names)
        factors = [self._factor(norm_sq) for norm_sq in norms_sq]
        for name, factor in zip(names, factors, strict=True):
            if factor < 1:  # at 1 nothing is touched, not even in its last bit
                parameters[f"{name}.lora_B"].mul_(factor)
        return {"kept": sum(factors) / len(factors)}

    def _factor(self, norm_sq: float) -> float:
        norm = math.sqrt(max(0.0, norm_sq))  # of a product near zero rounding may go below it
        return 1.0 if norm <= self.epsilon else self.epsilon / norm
