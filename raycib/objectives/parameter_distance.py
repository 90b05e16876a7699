"""Squared distance of the weights from the aligned model's (Trade-offs paper, Case II)."""

from raycib.models.step import Step
from raycib.objectives import LossTerm, LossTerms, Objective


class ParameterDistance(Objective):
    """||scale * B A||² summed over modules, through rank x rank matrices; weight lambda.

    The aligned model is the one under the adapter, so the distance is that of the effective
    update, whatever A and B it is a product of. It counts once an optimiser step.
    """

    def __init__(self, lam: float) -> None:
        super().__init__()
        self.lam = lam

    def forward(self, step: Step) -> LossTerms:
        return {"distance": LossTerm(step.update_norm_sq * step.share, self.lam)}
