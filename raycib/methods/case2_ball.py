"""A bound on the distance from the aligned model (Trade-offs paper, Case II)."""

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_serializer

from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import About, Method
from raycib.hooks import Hooks


class Case2Ball(Method):
    """Keeps the weights within a distance of the aligned model's, by projection after each step."""

    about: ClassVar[About] = About(
        name="Case II ball",
        paper="Fundamental Safety-Capability Trade-offs in Fine-tuning LLMs, Case II, Eq. 5",
        strength="epsilon: the radius, in units of distance (Frobenius norm), so a larger one "
        "holds less; infinite is plain LoRA",
        passes="none",
        needs="nothing",
        deviations="the paper solves Eq. 5 by the penalty alone; the distance is of the effective "
        "update scale * B A; only B is scaled, and the moments of Adam stay as they are",
        color="#7A5C00",
        mark="X",
        acts_by="weights within a distance of the aligned model's (Case II, Eq. 5)",
        mechanism={"distance": "lower"},
    )
    strength_field: ClassVar[str] = "epsilon"
    zero: ClassVar = {"epsilon": math.inf}
    bounds_whole_update: ClassVar[bool] = True
    kind: Literal["case2_ball"] = "case2_ball"
    epsilon: Annotated[float, Field(ge=0, allow_inf_nan=True)] = math.inf
    """Radius, as a Frobenius norm; 0 is the aligned model, infinite is plain LoRA."""
    scope: Literal["global", "module"] = "global"
    """One ball for the update of all modules together, or one of that radius for each."""

    @field_serializer("epsilon", when_used="json")
    def _infinity_as_text(self, epsilon: float) -> float | str:
        """JSON has no infinity, and a setting of this class would not reach what holds one."""
        return epsilon if math.isfinite(epsilon) else "inf"

    @property
    def is_plain(self) -> bool:
        """An infinite ball bounds nothing."""
        return self.epsilon == math.inf

    def faint(self) -> Self:
        """A ball that nothing leaves."""
        return self.model_copy(update={"epsilon": 1e30})

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """Radii that bind from the second step on."""
        return {
            "": cls(epsilon=0.25),
            "for each module": cls(epsilon=0.05, scope="module"),
        }

    def build(self) -> Hooks:
        """The projection after each step."""
        from raycib.hooks.ball import Ball

        return Hooks(after_step=lambda parameters, scale: Ball(scale, self.epsilon, self.scope))
