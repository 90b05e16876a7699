"""Cross-entropy that lets go of tokens that have moved far enough (Qi et al. 2025, Eq. 3)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raycib.models.step import Step
from raycib.objectives import LossTerm, LossTerms, Objective

FIRST_TOKENS = 5
"""The first token, and those up to this one, have factors of their own."""
LEAST_WEIGHT = 1e-3


def token_weights(
    nll: Float[Tensor, "rows seq"],
    reference_nll: Float[Tensor, "rows seq"],
    beta: Float[Tensor, "rows seq"],
) -> Float[Tensor, "rows seq"]:
    """w = 2 (1 - sigmoid(beta (log p - log p_ref))), at least .001: 1 where a token is as likely
    as in the aligned model, towards 0 where it is much likelier. Without gradient."""
    gained = (reference_nll - nll).detach()
    return (2 * torch.sigmoid(-beta * gained)).clamp(min=LEAST_WEIGHT)


class ConstrainedTokens(Objective):
    """Weighted cross-entropy over the response tokens, in place of the task loss.

    The plain task loss is reported beside it, without weight.
    """

    def __init__(self, beta: float, first_factor: float, early_factor: float) -> None:
        super().__init__()
        self.beta, self.first_factor, self.early_factor = beta, first_factor, early_factor

    def forward(self, step: Step) -> LossTerms:
        scored = step.batch.labels >= 0
        place: Int[Tensor, "rows seq"] = scored.cumsum(dim=1)  # 1 for the first response token
        factor = torch.ones_like(step.nll).masked_fill_(place <= FIRST_TOKENS, self.early_factor)
        factor.masked_fill_(place == 1, self.first_factor)
        reference = step.reference_tokens("response_nll").to(step.nll.dtype)
        reference_nll = torch.zeros_like(step.nll).masked_scatter(scored, reference)
        weights = token_weights(step.nll, reference_nll, self.beta * factor)
        return {
            "task": LossTerm(step.nll.detach().sum() / step.totals.tokens, 0.0),
            "constrained": LossTerm((weights * step.nll).sum() / step.totals.tokens),
        }
