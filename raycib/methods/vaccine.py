"""Training under the worst small perturbation of the hidden states (Vaccine)."""

from typing import ClassVar, Literal, Self

from pydantic import NonNegativeFloat, PositiveInt

from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import About, Method
from raycib.hooks import Hooks


class Vaccine(Method):
    """Trains under the worst small perturbation of the hidden states, layer by layer."""

    about: ClassVar[About] = About(
        name="Vaccine",
        paper="Huang et al. 2024, arXiv:2402.01109; the CIB paper's rho = 0.01 over 3 steps",
        strength="rho: L2 norm of the perturbation of all attention outputs together, in the units "
        "of hidden states",
        passes="+1 forward and +1 backward for each ascent step",
        needs="safety data where it is the alignment stage before the task (the official form)",
        deviations="norm per sequence by default (`norm=batch` is the official one); gradients of "
        "earlier micro-batches are kept, which the official code erases",
        color="#CC79A7",
        mark="P",
        acts_by="hidden embeddings that drift less (abstract and Figure 5, there of the alignment "
        "data); measured is their cosine on held-out rows of the task",
        mechanism={"cosine": "higher"},
    )
    strength_field: ClassVar[str] = "rho"
    perturbs_attention: ClassVar[bool] = True
    kind: Literal["vaccine"] = "vaccine"
    rho: NonNegativeFloat = 0.01
    """Radius of the ball that the perturbation of all layers together lies in; 0 is plain LoRA."""
    ascent_steps: PositiveInt = 3
    """Normalised steps of rho / ascent_steps; 1 and rho = 2 are the official ones."""
    norm: Literal["sequence", "batch"] = "sequence"
    """One ball for each row, or one for all rows of the effective batch together."""

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """Ours, and the official one."""
        return {
            "": cls(rho=0.1),
            "as its code has it": cls(rho=2.0, ascent_steps=1, norm="batch"),
        }

    def extra_rows(self, rows_a_step: int) -> float:
        """The batch, once an ascent step."""
        return self.ascent_steps * rows_a_step

    def build(self) -> Hooks:
        """The perturbation, found before each step."""
        from raycib.hooks.vaccine import worst_perturbation

        return Hooks(gradient_transform=worst_perturbation(self.rho, self.ascent_steps, self.norm))
