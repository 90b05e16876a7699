"""Cross-entropy that lets go of tokens that have moved far enough (Qi et al. 2025)."""

from typing import ClassVar, Literal, Self

from pydantic import NonNegativeFloat

from raycib.config.base import Feature
from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import About, Method
from raycib.hooks import Hooks


class ConstrainedToken(Method):
    """Weights each response token by how little it has moved from the aligned model, most
    strictly the first five."""

    about: ClassVar[About] = About(
        name="Constrained tokens",
        paper="Qi et al. 2025 (Safety alignment should be made more than just a few tokens deep), "
        "arXiv:2406.05946",
        strength="beta: strictness, per nat of a token's log-ratio to the aligned model",
        passes="none with cached references, else +1 forward",
        needs="nothing",
        deviations="none known; the mean is over the tokens of the whole effective batch",
        color="#9A6324",
        mark="h",
        acts_by="the first tokens of answers, on which safety hangs, stay as they were (section "
        "4); measured on answers to harmful prompts",
        mechanism={"opening": "higher"},
    )
    strength_field: ClassVar[str] = "beta"
    kind: Literal["constrained_token"] = "constrained_token"
    beta: NonNegativeFloat = 0.1
    """Strictness for late tokens; 0 is plain LoRA."""
    first_factor: NonNegativeFloat = 5.0
    """beta of the first response token, as a multiple."""
    early_factor: NonNegativeFloat = 20.0
    """beta of response tokens 2 to 5, as a multiple."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """-log p of every response token."""
        return (("response_nll", "final_norm"),)

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """A strictness that is felt within a few steps."""
        return {"": cls(beta=1.0)}

    def build(self) -> Hooks:
        """The weighted loss in place of the task's."""
        from raycib.objectives.constrained_token import ConstrainedTokens

        return Hooks(ConstrainedTokens(self.beta, self.first_factor, self.early_factor))
