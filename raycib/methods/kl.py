"""Staying near the aligned model's next-token distributions."""

from typing import ClassVar, Literal, Self

from pydantic import NonNegativeFloat

from raycib.config.base import Feature
from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import About, Method
from raycib.hooks import Hooks


class KL(Method):
    """Keeps the next-token distributions near the aligned model's: lam * KL."""

    about: ClassVar[About] = About(
        name="KL",
        paper="the CIB paper's KL row, C.2; official code: KLTrainer of Vaccine",
        strength="lam: nats per token of divergence against nats per token of the task, without "
        "unit",
        passes="none with cached references, else +1 forward; the output head twice more",
        needs="nothing",
        deviations="a true KL over the vocabulary; the official one is a softmax over time, which "
        "no constant added to the logits changes",
        color="#D55E00",
        mark="^",
        acts_by="next-token distributions near the reference model's (CIB paper, C.2); measured "
        "are the hidden states that they come from, on held-out rows of the task",
        mechanism={"cosine": "higher"},
    )
    kind: Literal["kl"] = "kl"
    lam: NonNegativeFloat = 0.1
    """Weight of the divergence; 0 is plain LoRA. The paper's 0.1 alone is a straw man."""
    direction: Literal["forward", "reverse"] = "forward"
    """`forward`: KL(reference, own); `reverse`: KL(own, reference)."""
    tokens: Literal["response", "all"] = "response"
    """Mean over the response's tokens, or over all that are predicted, the prompt's included."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """Hidden states of each token; the head is applied anew."""
        return (("response_states" if self.tokens == "response" else "all_states", "final_norm"),)

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """Both directions, both sets of tokens."""
        return {
            "": cls(lam=10.0),
            "reverse over all tokens": cls(lam=10.0, direction="reverse", tokens="all"),
        }

    def build(self) -> Hooks:
        """The divergence beside the task loss."""
        from raycib.objectives.kl import ReferenceDivergence

        return Hooks(
            penalty=lambda start: ReferenceDivergence(self.lam, self.direction, self.tokens)
        )
