"""A new adapter orthogonal to the frozen ones below it (O-LoRA)."""

from typing import ClassVar, Literal, Self

from pydantic import NonNegativeFloat

from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import About, Method
from raycib.hooks import Hooks


class OLoRA(Method):
    """Trains a new adapter on top of the earlier, frozen ones, orthogonally to them."""

    about: ClassVar[About] = About(
        name="O-LoRA",
        paper="Wang et al. 2023, arXiv:2310.14152",
        strength="lam: nats per token of the task's loss for a unit of overlap, summed over "
        "entries and modules (so it grows with both; `mean` divides by their number)",
        passes="none",
        needs="an earlier adapter; without one (a first task) it is plain LoRA",
        deviations="the penalty is counted once a step, however many micro-batches there are; no "
        "penalty on the size of the new factors (lambda_2 = 0, the official default)",
        color="#8A2B5C",
        mark="<",
        acts_by="a subspace orthogonal to earlier tasks' (abstract); not measured",
    )
    stacked: ClassVar[bool] = True
    kind: Literal["o_lora"] = "o_lora"
    lam: NonNegativeFloat = 0.5
    """lambda_1."""
    norm: Literal["l1", "squared"] = "l1"
    """Sum of the absolute overlaps (official code), or of their squares (paper)."""
    factor: Literal["lora_A", "lora_B"] = "lora_A"
    """Factor kept orthogonal: the official code's, or the one that the paper's text means."""
    mean: bool = False
    """Divide by the number of overlaps, so that lam means the same at any rank and depth."""

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """The official form, and the paper's."""
        return {
            "": cls(lam=0.1),
            "as its paper has it": cls(lam=1e4, norm="squared", factor="lora_B", mean=True),
        }

    def build(self) -> Hooks:
        """The overlap beside the task loss."""
        from raycib.objectives.orthogonality import Orthogonality

        return Hooks(
            penalty=lambda start: Orthogonality(self.lam, self.norm, self.factor, self.mean)
        )
