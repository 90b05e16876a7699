"""Half the squared distance of the weights from those at the start (L2-SP, Eq. 2)."""

from collections.abc import Mapping

import torch

from raycib.models.adapters import Update, update_norm_sq
from raycib.models.step import Step
from raycib.objectives import LossTerm, LossTerms, Objective


class StartDistance(Objective):
    """1/2 ||scale * (B A - B0 A0)||² summed over modules; weight alpha.

    Through rank x rank matrices, of B A - B0 A0 = (B - B0) A + B0 (A - A0), which is exactly zero
    at the start and loses nothing by cancellation near it. It counts once an optimiser step.
    """

    def __init__(self, start: Mapping[str, Update], alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        for name, update in start.items():
            self.register_buffer(_buffer(name, "a"), update.a.detach().clone())
            self.register_buffer(_buffer(name, "b"), update.b.detach().clone())

    def forward(self, step: Step) -> LossTerms:
        squares = []
        for name, (a, b, scale) in step.updates.items():
            a0, b0 = (self.get_buffer(_buffer(name, factor)) for factor in "ab")
            squares.append(
                update_norm_sq(torch.cat([a, a - a0]), torch.cat([b - b0, b0], dim=1), scale)
            )
        distance = torch.stack(squares).sum() / 2
        return {"from_start": LossTerm(distance * step.share, self.alpha)}


def _buffer(module: str, factor: str) -> str:
    return f"{factor}/{module.replace('.', '/')}"  # a module's attribute has no dots
