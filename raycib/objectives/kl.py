"""Distance of the next-token distributions from the aligned model's (CIB paper, the KL row)."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from raycib.models.head import with_logits
from raycib.models.step import Step
from raycib.objectives import LossTerm, LossTerms, Objective

Direction = Literal["forward", "reverse"]
Scope = Literal["response", "all"]
TENSORS = 7
"""Of the logits' size, at the peak: both models' logits and log-probabilities, probabilities, their
difference, and its product with them."""


def divergence(
    logits: Float[Tensor, "tokens vocabulary"],
    reference_logits: Float[Tensor, "tokens vocabulary"],
    direction: Direction = "forward",
) -> Float[Tensor, " tokens"]:
    """KL of two distributions over the vocabulary, a value for each token, in nats, in float32.

    `forward` is KL(reference, own), `reverse` KL(own, reference). For (.5, .5) and (.9, .1) they
    are .510826 and .368064.
    """
    own, reference = (x.float().log_softmax(dim=-1) for x in (logits, reference_logits))
    first, second = (reference, own) if direction == "forward" else (own, reference)
    return (first.exp() * (first - second)).sum(dim=-1)


def reference_divergence(
    step: Step,
    direction: Direction = "forward",
    tokens: Scope = "response",
) -> Float[Tensor, ""]:
    """The step's share of the mean divergence over the tokens of its effective batch."""

    def of(head: Any, own: Tensor, reference: Tensor) -> Tensor:
        with torch.no_grad():
            reference_logits = head(reference)
        return divergence(head(own), reference_logits, direction)

    which = "response_states" if tokens == "response" else "all_states"
    own = step.states(which)
    reference = step.reference_tokens(which).to(own.dtype)
    count = step.totals.tokens if tokens == "response" else step.totals.predicted
    return with_logits(step.model, of, own, reference, tensors=TENSORS).sum() / count


class ReferenceDivergence(Objective):
    """Mean KL between the aligned model's next-token distribution and the own one; weight lambda.

    Deviations from the paper: direction, tokens and reduction are unstated there, and options
    here; the official code takes a softmax over time, which this is not.
    """

    def __init__(
        self,
        lam: float,
        direction: Direction,
        tokens: Scope,
    ) -> None:
        super().__init__()
        self.lam = lam
        self.direction: Direction = direction
        self.tokens: Scope = tokens
        self.reads_prompts = tokens != "response"

    def forward(self, step: Step) -> LossTerms:
        return {"kl": LossTerm(reference_divergence(step, self.direction, self.tokens), self.lam)}
