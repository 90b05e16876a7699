"""Methods beyond the CIB paper that a reader of 2026 expects beside it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from raycib.spec.base import Reading
from raycib.spec.data import TaskSpec
from raycib.spec.method import About, MethodBase


class SafetyMix(MethodBase):
    """Plain LoRA on the task's rows and a few refusals among them."""

    about: ClassVar = About(
        name="Safety mix",
        paper="Bianchi et al. 2024 (Safety-Tuned LLaMAs), arXiv:2309.07875",
        strength="share: refusals for every row of the task",
        passes="none; `share` more steps",
        needs="safety data: harmful prompts with refusals",
        deviations="none known",
    )
    strength_field: ClassVar[str] = "share"
    kind: Literal["safety_mix"] = "safety_mix"
    share: NonNegativeFloat = 0.05
    """Safety rows added for every row of the task; repeated where there are too few."""
    safety: TaskSpec
    """Harmful prompts, with refusals."""

    @property
    def safety_rows(self) -> TaskSpec | None:
        """The refusals."""
        return self.safety

    def rows_trained(self, task_rows: int) -> int:
        """The task's rows and the ones added."""
        return task_rows + round(self.share * task_rows)


class ConstrainedToken(MethodBase):
    """Weights each response token by how little it has moved from the aligned model, most
    strictly the first five."""

    about: ClassVar = About(
        name="Constrained tokens",
        paper="Qi et al. 2025 (Safety alignment should be made more than just a few tokens deep), "
        "arXiv:2406.05946",
        strength="beta: strictness, per nat of a token's log-ratio to the aligned model",
        passes="none with cached references, else +1 forward",
        needs="nothing",
        deviations="none known; the mean is over the tokens of the whole effective batch",
    )
    strength_field: ClassVar[str] = "beta"
    kind: Literal["constrained_token"] = "constrained_token"
    beta: NonNegativeFloat = 0.1
    """Strictness for late tokens; 0 is plain LoRA."""
    first_factor: NonNegativeFloat = 5.0
    """beta of the first response token, as a multiple."""
    early_factor: NonNegativeFloat = 20.0
    """beta of response tokens 2 to 5, as a multiple."""

    @property
    def readings(self) -> tuple[Reading, ...]:
        """-log p of every response token."""
        return (("response_nll", "final_norm"),)


class EMA(MethodBase):
    """Plain LoRA, of which the exponential moving average of the weights is kept."""

    about: ClassVar = About(
        name="EMA",
        paper="Kim et al. 2025 (Rethinking Safety in LLM Fine-tuning), arXiv:2508.12531",
        strength="decay: share of the average that a step keeps, without unit",
        passes="none; one more copy of the adapter",
        needs="nothing; its learning rate is to be tuned (--set trainer.learning_rate)",
        deviations="written from the abstract: A and B are averaged each on its own, from their "
        "starting values on, and training goes on from the weights themselves",
    )
    strength_field: ClassVar[str] = "decay"
    kind: Literal["ema"] = "ema"
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Share of the average that a step keeps; 0 is plain LoRA."""


class SBR(MethodBase):
    """Holds the last hidden state of a few harmful prompts where the aligned model has it."""

    about: ClassVar = About(
        name="SBR",
        paper="Safety Anchor (Safety Bottleneck Regularization), ICML 2026, arXiv:2605.05995",
        strength="lam: nats per token of the task's loss for a unit of mean squared error between "
        "hidden states",
        passes="+1 forward and backward of `anchors` prompts",
        needs="safety data: a few harmful prompts",
        deviations="the anchor counts once an optimiser step; the authors accumulate 4 "
        "micro-batches of which each counts it whole, so that their alpha acts fourfold: their 50 "
        "is lam = 200 here",
    )
    kind: Literal["sbr"] = "sbr"
    lam: NonNegativeFloat = 50.0
    """alpha: weight of the mean squared error; 0 is plain LoRA."""
    anchors: PositiveInt = 8
    """Harmful prompts, the first ones of the safety data; all of them at every step."""
    safety: TaskSpec
    """Harmful prompts, with refusals."""

    @property
    def safety_rows(self) -> TaskSpec | None:
        """Harmful prompts; their answers are not used."""
        return self.safety

    @property
    def safety_readings(self) -> tuple[Reading, ...]:
        """The state that decides the first answer token."""
        return (("last_prompt_token", "final_norm"),)


class SafeGrad(MethodBase):
    """Removes from the task's gradient what conflicts with staying near the aligned model on
    safety data, and adds that gradient's own pull."""

    about: ClassVar = About(
        name="SafeGrad",
        paper="Yi et al. 2025 (Gradient Surgery for Safe LLM Fine-Tuning), arXiv:2508.07172",
        strength="lam: gradient of a KL in nats per token against the task's, without unit",
        passes="+1 forward and backward of `rows_per_step` rows",
        needs="safety data: harmful prompts with refusals",
        deviations="written from the abstract: the conflict is that of the adapter's whole "
        "gradient; lam, the weight of the pull, is our reading (near 0: surgery alone)",
    )
    kind: Literal["safegrad"] = "safegrad"
    lam: NonNegativeFloat = 1.0
    """Weight of the safety gradient that is added; 0 is plain LoRA, without surgery."""
    rows_per_step: PositiveInt = 8
    """Safety rows of an optimiser step."""
    safety: TaskSpec
    """Harmful prompts, with refusals."""

    @property
    def safety_rows(self) -> TaskSpec | None:
        """Harmful prompts with refusals."""
        return self.safety

    @property
    def safety_readings(self) -> tuple[Reading, ...]:
        """Hidden states of the refusals' tokens."""
        return (("response_states", "final_norm"),)
