"""Last hidden states of harmful prompts, held where the aligned model has them (SBR)."""

from raycib.models.step import Step
from raycib.objectives import LossTerm, LossTerms, Objective


class SafetyAnchor(Objective):
    """Mean squared error, over prompts and dimensions, between the final hidden states of the
    last prompt token here and in the aligned model; weight alpha.

    Needs safety rows beside the task's; only their prompts matter. It counts once an optimiser
    step: the authors' counts once a micro-batch, and they accumulate 4.
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, step: Step) -> LossTerms:
        if step.safety is None:  # this micro-batch got none of them
            return {}
        safety = step.safety.alone()
        z = safety.pooled("last_prompt_token", "final_norm")
        reference = safety.reference("last_prompt_token", "final_norm")
        error = (z - reference).square().mean(dim=1).sum() / safety.totals.rows
        return {"anchor": LossTerm(error, self.alpha)}
