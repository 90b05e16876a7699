"""A penalty on proxy safety data (Trade-offs paper, Case I)."""

from typing import ClassVar, Literal, Self

from pydantic import NonNegativeFloat, PositiveInt, model_validator

from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import About, Method
from raycib.hooks import AuxiliaryBatch, Hooks


class Case1(Method):
    """Adds the loss on proxy safety data to the task's, from a stream of its own."""

    about: ClassVar[About] = About(
        name="Case I",
        paper="Fundamental Safety-Capability Trade-offs in Fine-tuning LLMs, Case I, Eq. 2; "
        "official code for the convex form: SEAL, arXiv:2410.07471",
        strength="lam: nats per token of the proxy against nats per token of the task, so without "
        "unit (`reduction=row`: per answer's mean token)",
        passes="+1 forward and backward of `rows_per_step` rows",
        needs="proxy safety data: any prompts with the answers to keep",
        deviations="both losses are means over tokens, so in the paper's units, nats an answer, "
        "lambda is lam times (mean answer tokens of the task / of the proxy); SEAL's code takes a "
        "mean over each row's tokens and then over rows (`reduction=row`: no lambda in nats an "
        "answer), and shuffles both sets together, so that its weight goes with their sizes",
        color="#D81B60",
        mark="P",
        acts_by="a low loss on the proxy safety data (Case I, Eq. 2); the trade-off sweeps "
        "measure it, others do not",
    )
    kind: Literal["case1"] = "case1"
    lam: NonNegativeFloat = 0.5
    """Weight of the alignment loss; 0 is plain LoRA, which draws no safety rows."""
    form: Literal["additive", "convex"] = "additive"
    """`additive`: task + lam * alignment (Eq. 2). `convex`: (1 - lam) * task + lam * alignment."""
    reduction: Literal["token", "row"] = "token"
    """Both losses as means over all tokens, or over rows of each row's mean over its tokens, which
    is SEAL's: there a short answer counts as much as a long one. At lam = 0 it is plain LoRA, whose
    mean is over tokens, either way."""
    rows_per_step: PositiveInt = 8
    """Safety rows of an optimiser step; as many as the batch has would double its cost."""
    safety: TaskSpec
    """The proxy safety data."""

    @model_validator(mode="after")
    def _convex_weights(self) -> Self:
        if self.form == "convex" and self.lam > 1:
            raise ValueError(f"case1: the convex form needs lam from 0 to 1, found {self.lam:g}")
        return self

    def faint(self) -> Self | None:
        """A mean over rows is no mean over tokens."""
        return None if self.reduction == "row" else super().faint()

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """Both forms, both reductions."""
        return {
            "": cls(lam=2.0, safety=safety, rows_per_step=5),
            "convex": cls(lam=0.7, form="convex", safety=safety),
            "means over rows": cls(lam=2.0, reduction="row", safety=safety, rows_per_step=5),
        }

    def extra_rows(self, rows_a_step: int) -> float:
        """The proxy rows."""
        return self.rows_per_step

    def build(self) -> Hooks:
        """Both losses in place of the task's."""
        from raycib.objectives.alignment_penalty import AlignmentPenalty

        rest = 1 - self.lam if self.form == "convex" else 1.0
        loss = AlignmentPenalty(self.lam, rest, self.reduction)
        return Hooks(loss, auxiliary=AuxiliaryBatch(self.rows_per_step))
