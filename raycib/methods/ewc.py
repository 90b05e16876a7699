"""Staying near the aligned model where its refusals depend on a weight (EWC)."""

from typing import ClassVar, Literal, Self

from pydantic import NonNegativeFloat, PositiveInt

from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import About, Method
from raycib.hooks import AdapterContext, Hooks
from raycib.store.kinds import FISHERS


class EWC(Method):
    """A penalty on the squared distance from the aligned model, each weight by its Fisher
    information for the safety data."""

    about: ClassVar[About] = About(
        name="EWC",
        paper="Kirkpatrick et al. 2017 (Overcoming catastrophic forgetting), arXiv:1612.00796, "
        "Eq. 3",
        strength="lam: nats per token of the task's loss for half a unit of Fisher-weighted "
        "squared distance (the Fisher's log-likelihood is in nats an answer)",
        passes="none, but the dense update of each module and a product with its Fisher; one pass "
        "over `fisher_rows` for the whole grid; two float32 copies of the adapted weights",
        needs="safety data: harmful prompts with the aligned model's refusals",
        deviations="the earlier task is alignment: the Fisher is the aligned model's on refusals, "
        "its diagonal over the adapted weights, not over A and B (where B starts at zero that of A "
        "is zero); empirical, of the given refusals rather than of drawn answers; the distance is "
        "of the effective update scale * B A",
        color="#A0522D",
        mark="<",
        acts_by="weights that refusals depend on stay where they were (section 2, Eq. 3); their "
        "weighted distance is not measured",
    )
    kind: Literal["ewc"] = "ewc"
    lam: NonNegativeFloat = 1.0
    """lambda; 0 is plain LoRA."""
    fisher_rows: PositiveInt = 128
    """Refusals that the Fisher is a mean over: the first ones of the safety data."""
    safety: TaskSpec
    """Harmful prompts with refusals."""

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """A weight that is felt within a few steps."""
        return {"": cls(lam=3.0, safety=safety, fisher_rows=8)}

    def extra_bytes(self, adapted: int, own: int) -> int:
        """The Fisher information, and the dense update that it weighs, in float32."""
        return 8 * adapted

    def build(self) -> Hooks:
        """The weighted distance beside the task loss, with the Fisher of the aligned model."""
        from raycib.objectives.ewc import FisherDistance, fisher

        def penalty(start: AdapterContext) -> FisherDistance:
            model, targets = start.stage.model, start.adapters.shapes[start.slot].targets
            what = {
                "fisher": 1,
                "model": model.identity(),
                "rows": self.safety.identity(),
                "count": self.fisher_rows,
                "targets": list(targets),
            }
            modules = start.adapters.modules_of(start.slot)
            rows = start.encode(self.safety)[: self.fisher_rows]
            found = start.once(FISHERS, what, lambda: fisher(start.adapters, modules, rows))
            return FisherDistance(found, self.lam)

        return Hooks(penalty=penalty)
