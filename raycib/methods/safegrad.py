"""Gradient surgery: the task may not undo what holds the safety data in place (SafeGrad)."""

from typing import ClassVar, Literal, Self

from pydantic import NonNegativeFloat, PositiveInt

from raycib.config.base import Feature
from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import About, Method
from raycib.hooks import AuxiliaryBatch, Hooks


class SafeGrad(Method):
    """Removes from the task's gradient what conflicts with staying near the aligned model on
    safety data, and adds that gradient's own pull."""

    about: ClassVar[About] = About(
        name="SafeGrad",
        paper="Yi et al. 2025 (Gradient Surgery for Safe LLM Fine-Tuning), arXiv:2508.07172",
        strength="lam: gradient of a KL in nats per token against the task's, without unit",
        passes="+1 forward and backward of `rows_per_step` rows",
        needs="safety data: harmful prompts with refusals",
        deviations="written from the abstract: the conflict is that of the adapter's whole "
        "gradient; lam, the weight of the pull, is our reading (near 0: surgery alone)",
        color="#C0392B",
        mark="D",
        acts_by="task gradients without what conflicts with the safety gradient's (abstract); not "
        "measured",
    )
    kind: Literal["safegrad"] = "safegrad"
    lam: NonNegativeFloat = 1.0
    """Weight of the safety gradient that is added; 0 is plain LoRA, without surgery."""
    rows_per_step: PositiveInt = 8
    """Safety rows of an optimiser step."""
    safety: TaskSpec
    """Harmful prompts, with refusals."""

    @property
    def safety_features(self) -> tuple[Feature, ...]:
        """Hidden states of the refusals' tokens."""
        return (("response_states", "final_norm"),)

    def faint(self) -> None:
        """Without its pull it is surgery still."""
        return None

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """Fewer safety rows than there are."""
        return {"": cls(safety=safety, rows_per_step=5)}

    def extra_rows(self, rows_a_step: int) -> float:
        """The safety rows."""
        return self.rows_per_step

    def extra_bytes(self, adapted: int, own: int) -> int:
        """The safety gradient, until the task's is there."""
        return 4 * own

    def build(self) -> Hooks:
        """The surgery on each step's gradient."""
        from raycib.hooks.safegrad import surgery

        return Hooks(
            auxiliary=AuxiliaryBatch(self.rows_per_step), gradient_transform=surgery(self.lam)
        )
