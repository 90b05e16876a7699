"""A method of one's own: hidden states held near the aligned model's.

raycib methods check docs/examples/anchor_method.py
"""

from typing import ClassVar, Literal

from pydantic import NonNegativeFloat

from raycib.config import About, Feature, Method
from raycib.hooks import Hooks


class Anchor(Method):
    """Holds the mean hidden state of each answer where the aligned model has it."""

    about: ClassVar[About] = About(
        name="Anchor",
        paper="none: an example",
        strength="lam: nats per token of the task's loss for a unit of mean squared error",
        passes="none with cached references, else +1 forward without the head",
        needs="nothing",
        deviations="none",
    )
    kind: Literal["anchor"] = "anchor"
    lam: NonNegativeFloat = 1.0
    """Weight of the mean squared error; 0 is plain LoRA."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """The aligned model's vectors that the loss looks up: one for each row."""
        return (("mean_response", "final_norm"),)

    def build(self) -> Hooks:
        """The distance beside the task loss."""
        from raycib.models.step import Step
        from raycib.objectives import LossTerm, LossTerms, Objective

        lam = self.lam

        class Distance(Objective):
            """Mean squared error over the rows of a batch and the dimensions."""

            def forward(self, step: Step) -> LossTerms:
                own = step.pooled("mean_response", "final_norm")
                aligned = step.reference("mean_response", "final_norm")
                error = (own - aligned).square().mean(dim=1).sum() / step.totals.rows
                return {"anchor": LossTerm(error, lam)}

        return Hooks(penalty=lambda start: Distance())
