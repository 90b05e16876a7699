"""The task loss: token cross-entropy of the responses."""

from raycib.objectives import LossTerm, LossTerms, Objective
from raycib.step import Step


class CrossEntropy(Objective):
    """-(1 / sum_i n_i) sum_i log p(y_i | x_i), in nats per response token.

    The mean is over the tokens of the whole effective batch, so a token counts the same whichever
    micro-batch or worker it falls on.
    """

    def forward(self, step: Step) -> LossTerms:
        return {"task": LossTerm(step.nll.sum() / step.totals.tokens)}
