"""Projection of a trained adapter onto the direction that alignment took (Safe LoRA)."""

from typing import Any, ClassVar, Literal, Self

from pydantic import NonNegativeInt

from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import DECIMALS, About, Method
from raycib.hooks import Hooks


class SafeLoRA(Method):
    """Projects a trained LoRA onto the direction that alignment took, where they disagree."""

    about: ClassVar[About] = About(
        name="Safe LoRA",
        paper="Hsu et al. 2024, arXiv:2405.16833",
        strength="1 + threshold, or number: a cosine and 1 (at 0 nothing is projected), or modules",
        passes="none: derived from the LoRA stage",
        needs="the base model before alignment",
        deviations="cosines are not rounded, modules are paired by name; 'projection' is the "
        "paper's word: the matrix is not idempotent (`projector=exact` is, and does nothing where "
        "the alignment update has full rank)",
        color="#E69F00",
        mark="v",
        acts_by="an update within the subspace that alignment moved the weights in (abstract); "
        "not measured",
    )
    zero: ClassVar = {"threshold": -1.0, "number": 0}
    derived: ClassVar[bool] = True
    kind: Literal["safe_lora"] = "safe_lora"
    base: ModelSpec
    """The model that the aligned one was made from."""
    choose: Literal["threshold", "number"] = "threshold"
    """Project modules with a cosine of at most `threshold`, or the `number` with the lowest."""
    threshold: float = 0.5
    """tau, a cosine."""
    number: NonNegativeInt = 10
    """Modules to project, of the lowest cosines."""
    projector: Literal["approximate", "exact"] = "approximate"
    """V V' / |V|_F, which is the method, or the orthogonal projector onto the span of V."""

    @classmethod
    def at(cls, strength: float, **others: Any) -> Self:
        """At the threshold `strength` - 1, or projecting `strength` modules."""
        if others.get("choose") == "number":
            return cls.model_validate({"number": strength, **others})
        return cls(threshold=round(strength - 1, DECIMALS), **others)

    @property
    def strength(self) -> float:
        """1 + tau, so that 0 projects nothing; or the number of modules."""
        return (
            max(0.0, round(1 + self.threshold, DECIMALS))
            if self.choose == "threshold"
            else float(self.number)
        )

    def faint(self) -> Self | None:
        """The smallest number of modules is one."""
        return self.model_copy(update={"threshold": -0.999}) if self.choose == "threshold" else None

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """Thresholds and numbers that project some modules and not others."""
        return {
            "": cls(base=base, threshold=0.69),
            "number": cls(base=base, choose="number", number=3),
            "exact": cls(base=base, choose="number", number=4, projector="exact"),
        }

    def build(self) -> Hooks:
        """The projection, in place of training."""
        from raycib.hooks.safe_lora import project_to_alignment

        return Hooks(start=project_to_alignment(self))
