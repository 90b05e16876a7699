"""The task loss: token cross-entropy of the responses."""

from typing import Literal

from raycib.models.step import Step
from raycib.objectives import LossTerm, LossTerms, Objective

Reduction = Literal["token", "row"]
"""What counts alike in a mean: every token, or every row, by the mean over its own tokens."""


class CrossEntropy(Objective):
    """-(1 / sum_i n_i) sum_i log p(y_i | x_i), in nats per response token.

    The mean is over the tokens of the whole effective batch, so a token counts the same whichever
    micro-batch or worker it falls on. With `reduction="row"` it is -(1 / rows) sum_i (1 / n_i)
    log p(y_i | x_i), over the rows of the whole effective batch.
    """

    def __init__(self, reduction: Reduction = "token") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, step: Step) -> LossTerms:
        if self.reduction == "row":
            return {"task": LossTerm(step.row_loss.sum() / step.totals.rows)}
        return {"task": LossTerm(step.nll.sum() / step.totals.tokens)}
