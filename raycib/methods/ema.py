"""The exponential moving average of the weights (Kim et al. 2025)."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import About, Method
from raycib.hooks import Hooks


class EMA(Method):
    """Plain LoRA, of which the exponential moving average of the weights is kept."""

    about: ClassVar[About] = About(
        name="EMA",
        paper="Kim et al. 2025 (Rethinking Safety in LLM Fine-tuning), arXiv:2508.12531",
        strength="decay: share of the average that a step keeps, without unit",
        passes="none; one more copy of the adapter",
        needs="nothing; its learning rate is to be tuned (--set trainer.learning_rate)",
        deviations="written from the abstract: A and B are averaged each on its own, from their "
        "starting values on, and training goes on from the weights themselves",
        color="#9A9A2B",
        mark="o",
        acts_by="weights that keep to a stable path and so retain what the model was (abstract); "
        "measured is their distance from the aligned model",
        mechanism={"distance": "lower"},
    )
    strength_field: ClassVar[str] = "decay"
    kind: Literal["ema"] = "ema"
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Share of the average that a step keeps; 0 is plain LoRA."""

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """An average over some five steps."""
        return {"": cls(decay=0.8)}

    def extra_bytes(self, adapted: int, own: int) -> int:
        """The mean adapter."""
        return 4 * own

    def build(self) -> Hooks:
        """The average that goes along with the weights."""
        from raycib.hooks.ema import WeightAverage

        return Hooks(after_step=lambda parameters, scale: WeightAverage(parameters, self.decay))
