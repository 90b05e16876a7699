"""Hidden states of harmful prompts held where the aligned model has them (SBR)."""

from typing import ClassVar, Literal, Self

from pydantic import NonNegativeFloat, PositiveInt

from raycib.config.base import Feature
from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import About, Method
from raycib.hooks import AuxiliaryBatch, Hooks


class SBR(Method):
    """Holds the last hidden state of a few harmful prompts where the aligned model has it."""

    about: ClassVar[About] = About(
        name="SBR",
        paper="Safety Anchor (Safety Bottleneck Regularization), ICML 2026, arXiv:2605.05995",
        strength="lam: nats per token of the task's loss for a unit of mean squared error between "
        "hidden states",
        passes="+1 forward and backward of `anchors` prompts",
        needs="safety data: a few harmful prompts",
        deviations="the anchor counts once an optimiser step; the authors accumulate 4 "
        "micro-batches of which each counts it whole, so that their alpha acts fourfold: their 50 "
        "is lam = 200 here",
        color="#5B3FA0",
        mark="^",
        acts_by="the last hidden states of harmful prompts, which decide how an answer begins, "
        "stay where they were (abstract); measured on those beginnings",
        mechanism={"opening": "higher"},
    )
    kind: Literal["sbr"] = "sbr"
    lam: NonNegativeFloat = 50.0
    """alpha: weight of the mean squared error; 0 is plain LoRA."""
    anchors: PositiveInt = 8
    """Harmful prompts, the first ones of the safety data; all of them at every step."""
    safety: TaskSpec
    """Harmful prompts, with refusals, which are not used."""

    @property
    def safety_features(self) -> tuple[Feature, ...]:
        """The state that decides the first answer token."""
        return (("last_prompt_token", "final_norm"),)

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """The official number of anchors."""
        return {"": cls(safety=safety, anchors=8)}

    def extra_rows(self, rows_a_step: int) -> float:
        """The anchors."""
        return self.anchors

    def build(self) -> Hooks:
        """The anchor beside the task loss, on the same prompts at every step."""
        from raycib.objectives.safety_anchor import SafetyAnchor

        auxiliary = AuxiliaryBatch(self.anchors, at_most=self.anchors, prompts_only=True)
        return Hooks(penalty=lambda start: SafetyAnchor(self.lam), auxiliary=auxiliary)
