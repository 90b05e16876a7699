"""The two strategies of the Trade-offs paper: a penalty on proxy safety data (Case I), and a bound
on how far the weights may go (Case II), as a penalty and as the constraint itself."""

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, field_serializer, model_validator

from raycib.spec.data import TaskSpec
from raycib.spec.method import About, MethodBase


class Case1(MethodBase):
    """Adds the loss on proxy safety data to the task's, from a stream of its own."""

    about: ClassVar = About(
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

    @property
    def safety_rows(self) -> TaskSpec | None:
        """The proxy safety data."""
        return self.safety


class Case2(MethodBase):
    """A penalty on the squared distance of the weights from the aligned model's."""

    about: ClassVar = About(
        name="Case II penalty",
        paper="Fundamental Safety-Capability Trade-offs in Fine-tuning LLMs, Case II",
        strength="lam: nats per token of the task's loss for a squared unit of distance (Frobenius "
        "norm of the effective update)",
        passes="none",
        needs="nothing",
        deviations="the distance is of the effective update scale * B A, not of A and B",
    )
    kind: Literal["case2"] = "case2"
    lam: NonNegativeFloat = 1e-3
    """Weight of the squared Frobenius norm of the update; 0 is plain LoRA."""


class Case2Ball(MethodBase):
    """Keeps the weights within a distance of the aligned model's, by projection after each step."""

    about: ClassVar = About(
        name="Case II ball",
        paper="Fundamental Safety-Capability Trade-offs in Fine-tuning LLMs, Case II, Eq. 5",
        strength="epsilon: the radius, in units of distance (Frobenius norm), so a larger one "
        "holds less; infinite is plain LoRA",
        passes="none",
        needs="nothing",
        deviations="the paper solves Eq. 5 by the penalty alone; the distance is of the effective "
        "update scale * B A; only B is scaled, and the moments of Adam stay as they are",
    )
    strength_field: ClassVar[str] = "epsilon"
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
