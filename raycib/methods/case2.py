"""A penalty on the distance from the aligned model (Trade-offs paper, Case II)."""

from typing import ClassVar, Literal, Self

from pydantic import NonNegativeFloat

from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import About, Method
from raycib.hooks import Hooks


class Case2(Method):
    """A penalty on the squared distance of the weights from the aligned model's."""

    about: ClassVar[About] = About(
        name="Case II penalty",
        paper="Fundamental Safety-Capability Trade-offs in Fine-tuning LLMs, Case II",
        strength="lam: nats per token of the task's loss for a squared unit of distance (Frobenius "
        "norm of the effective update)",
        passes="none",
        needs="nothing",
        deviations="the distance is of the effective update scale * B A, not of A and B",
        color="#009E73",
        mark="D",
        acts_by="weights near the aligned model's (Case II, Eq. 5)",
        mechanism={"distance": "lower"},
    )
    kind: Literal["case2"] = "case2"
    lam: NonNegativeFloat = 1e-3
    """Weight of the squared Frobenius norm of the update; 0 is plain LoRA."""

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """A weight that is felt within a few steps."""
        return {"": cls(lam=0.01)}

    def build(self) -> Hooks:
        """The distance beside the task loss."""
        from raycib.objectives.parameter_distance import ParameterDistance

        return Hooks(penalty=lambda start: ParameterDistance(self.lam))
