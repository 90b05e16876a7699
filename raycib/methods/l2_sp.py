"""Staying near the weights that a stage starts from (L2-SP)."""

from typing import ClassVar, Literal, Self

from pydantic import NonNegativeFloat

from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import About, Method
from raycib.hooks import Hooks


class L2SP(Method):
    """A penalty on the squared distance of the weights from where the stage starts."""

    about: ClassVar[About] = About(
        name="L2-SP",
        paper="Li et al. 2018 (Explicit Inductive Bias for Transfer Learning), arXiv:1802.01483, "
        "Eq. 2",
        strength="lam: alpha of the paper; nats per token of the task's loss for half a squared "
        "unit of distance (Frobenius norm of the effective update)",
        passes="none; one more copy of the adapter",
        needs="nothing",
        deviations="the distance is of the effective update scale * B A, not of A and B, of which "
        "A starts at random; there are no new layers, so no second term (beta); from the aligned "
        "model it is Case II's penalty at lam / 2, after another task it is not: it stays near "
        "that task's weights",
        color="#2F6F6F",
        mark="h",
        acts_by="weights near those it starts from (Eq. 2)",
        mechanism={"distance": "lower"},
    )
    kind: Literal["l2_sp"] = "l2_sp"
    lam: NonNegativeFloat = 0.02
    """alpha: weight of half the squared distance; 0 is plain LoRA."""

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """A weight that is felt within a few steps."""
        return {"": cls(lam=0.02)}

    def extra_bytes(self, adapted: int, own: int) -> int:
        """The adapter as it started."""
        return 4 * own

    def build(self) -> Hooks:
        """The distance beside the task loss, from the slot as it starts."""
        from raycib.objectives.l2_sp import StartDistance

        return Hooks(penalty=lambda start: StartDistance(start.updates, self.lam))
