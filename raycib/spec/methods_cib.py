"""The methods of the CIB paper's tables. What each does is in `raycib/methods`, file by file."""

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from raycib.spec.base import Layer, Pooling, Reading
from raycib.spec.data import ModelSpec, TaskSpec
from raycib.spec.method import About, MethodBase

DECIMALS = 12
"""Of a strength that is one minus a setting: 1 - 0.7 is not 0.3 in binary."""


class PlainLoRA(MethodBase):
    """Standard LoRA supervised fine-tuning: what every method is at strength zero."""

    about: ClassVar = About(
        name="LoRA",
        paper="Hu et al. 2021, arXiv:2106.09685",
        strength="none",
        passes="none",
        needs="nothing",
        deviations="none",
    )
    kind: Literal["lora"] = "lora"

    @property
    def strength(self) -> float:
        """Always 0."""
        return 0.0


class RandomSubset(MethodBase):
    """Plain LoRA on a random subset of the task's rows, drawn anew for every seed."""

    about: ClassVar = About(
        name="Random subset",
        paper='"Random" of the CIB paper, Table 2; "Random selection" of SEAL, arXiv:2410.07471',
        strength="1 - fraction: the share of rows left out",
        passes="none; a share of the steps is saved",
        needs="nothing",
        deviations="the paper says no more than 'random sample selection'; 0.8 is SEAL's fraction",
    )
    kind: Literal["random_subset"] = "random_subset"
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of the task's rows that is trained on; 1 is plain LoRA."""

    @classmethod
    def at(cls, strength: float, **others: Any) -> Self:
        """Leaving out this share of the rows."""
        return cls(fraction=round(1 - strength, DECIMALS), **others)

    @property
    def strength(self) -> float:
        """Share of rows left out."""
        return round(1 - self.fraction, DECIMALS)

    def rows_trained(self, task_rows: int) -> int:
        """At least one row."""
        return max(1, round(self.fraction * task_rows))


class KL(MethodBase):
    """Keeps the next-token distributions near the aligned model's: lam * KL."""

    about: ClassVar = About(
        name="KL",
        paper="the CIB paper's KL row, C.2; official code: KLTrainer of Vaccine",
        strength="lam: nats per token of divergence against nats per token of the task, without "
        "unit",
        passes="none with cached references, else +1 forward; the output head twice more",
        needs="nothing",
        deviations="a true KL over the vocabulary; the official one is a softmax over time, which "
        "no constant added to the logits changes",
    )
    kind: Literal["kl"] = "kl"
    lam: NonNegativeFloat = 0.1
    """Weight of the divergence; 0 is plain LoRA. The paper's 0.1 alone is a straw man."""
    direction: Literal["forward", "reverse"] = "forward"
    """`forward`: KL(reference, own); `reverse`: KL(own, reference)."""
    tokens: Literal["response", "all"] = "response"
    """Mean over the response's tokens, or over all that are predicted, the prompt's included."""

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Hidden states of each token; the head is applied anew."""
        return (("response_states" if self.tokens == "response" else "all_states", "final_norm"),)


class Vaccine(MethodBase):
    """Trains under the worst small perturbation of the hidden states, layer by layer."""

    about: ClassVar = About(
        name="Vaccine",
        paper="Huang et al. 2024, arXiv:2402.01109; the CIB paper's rho = 0.01 over 3 steps",
        strength="rho: L2 norm of the perturbation of all attention outputs together, in the units "
        "of hidden states",
        passes="+1 forward and +1 backward for each ascent step",
        needs="safety data where it is the alignment stage before the task (the official form)",
        deviations="norm per sequence by default (`norm=batch` is the official one); gradients of "
        "earlier micro-batches are kept, which the official code erases",
    )
    strength_field: ClassVar[str] = "rho"
    kind: Literal["vaccine"] = "vaccine"
    rho: NonNegativeFloat = 0.01
    """Radius of the ball that the perturbation of all layers together lies in; 0 is plain LoRA."""
    ascent_steps: PositiveInt = 3
    """Normalised steps of rho / ascent_steps; 1 and rho = 2 are the official ones."""
    norm: Literal["sequence", "batch"] = "sequence"
    """One ball for each row, or one for all rows of the effective batch together."""


class SafeLoRA(MethodBase):
    """Projects a trained LoRA onto the direction that alignment took, where they disagree."""

    about: ClassVar = About(
        name="Safe LoRA",
        paper="Hsu et al. 2024, arXiv:2405.16833",
        strength="threshold, a cosine (at or below -1 nothing is projected), or number of modules",
        passes="none: derived from the LoRA stage",
        needs="the base model before alignment",
        deviations="cosines are not rounded, modules are paired by name; 'projection' is the "
        "paper's word: the matrix is not idempotent (`projector=exact` is, and does nothing where "
        "the alignment update has full rank)",
    )
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


class SaLoRA(MethodBase):
    """LoRA whose output cannot move the directions in which harmful prompts are answered."""

    about: ClassVar = About(
        name="SaLoRA",
        paper="Li et al. 2025, arXiv:2501.01765",
        strength="safety_rank: directions kept fixed; at 0 only init=default is plain LoRA",
        passes="none; one calibration pass over a few rows for the whole grid",
        needs="safety data: harmful prompts with the aligned model's refusals",
        deviations="calibrated in one pass over the unchanged model, on the response tokens that "
        "the official code takes too; that one runs the model once for each layer, and its task "
        "pass has subtracted B0 A0 from the layers before, so that later layers start elsewhere "
        "(by .3 relative; without that ours is its start to 6e-6); its SVD is randomised "
        "(projector off by 3e-3 to 6e-2 where singular values are close), ours exact; its training "
        "text is not masked, ours is; exported as an ordinary adapter of twice the rank, on the "
        "unchanged base",
    )
    strength_field: ClassVar[str] = "safety_rank"
    starts_itself: ClassVar[bool] = True
    kind: Literal["salora"] = "salora"
    safety: TaskSpec
    """Harmful prompts with the aligned model's refusals."""
    safety_rank: Annotated[int, Field(ge=0, le=128)] = 16
    """r_s: dimension of the fixed safety subspace of each module's output."""
    init: Literal["task", "default"] = "task"
    """Start in the task's own directions (then subtracted from the base), or as LoRA does."""
    task_rank: Annotated[int, Field(ge=1, le=128)] = 32
    """t: dimension of the task subspace that the start lies in."""
    calibration_rows: PositiveInt = 128
    """Rows of each kind that the subspaces are computed from."""

    @property
    def is_plain(self) -> bool:
        """Without a safety subspace, and without the task's start."""
        return self.safety_rank == 0 and self.init == "default"

    @property
    def safety_rows(self) -> TaskSpec | None:
        """Harmful prompts with refusals."""
        return self.safety

    def exported_rank(self, rank: int) -> int:
        """The start is subtracted by as many columns again."""
        return 2 * rank if self.init == "task" else rank


class OLoRA(MethodBase):
    """Trains a new adapter on top of the earlier, frozen ones, orthogonally to them."""

    about: ClassVar = About(
        name="O-LoRA",
        paper="Wang et al. 2023, arXiv:2310.14152",
        strength="lam: nats per token of the task's loss for a unit of overlap, summed over "
        "entries and modules (so it grows with both; `mean` divides by their number)",
        passes="none",
        needs="an earlier adapter; without one (a first task) it is plain LoRA",
        deviations="the penalty is counted once a step, however many micro-batches there are; no "
        "penalty on the size of the new factors (lambda_2 = 0, the official default)",
    )
    stacked: ClassVar[bool] = True
    kind: Literal["o_lora"] = "o_lora"
    lam: NonNegativeFloat = 0.5
    """lambda_1."""
    norm: Literal["l1", "squared"] = "l1"
    """Sum of the absolute overlaps (official code), or of their squares (paper)."""
    factor: Literal["lora_A", "lora_B"] = "lora_A"
    """Factor kept orthogonal: the official code's, or the one that the paper's text means."""
    mean: bool = False
    """Divide by the number of overlaps, so that lam means the same at any rank and depth."""


class CIB(MethodBase):
    """Conditional information bottleneck: a contrastive pull to the aligned model's own
    representations, with a queue of hard negatives (CIB paper, Eq. 14-16)."""

    about: ClassVar = About(
        name="CIB",
        paper="Safety LLMs fine-tuning via Conditional Information Bottleneck, Eq. 14-16",
        strength="lam: nats of the contrastive loss against nats per token of the task, without "
        "unit",
        passes="none with cached references, else +1 forward without the head",
        needs="nothing",
        deviations="the paper states four selection rules and three numbers of negatives: each is "
        "an option; by default negatives are the aligned model's states, a valid bound",
    )
    kind: Literal["cib"] = "cib"
    lam: NonNegativeFloat = 5.0
    """lambda: weight of the contrastive term; 0 is plain LoRA."""
    temperature: PositiveFloat = 0.2
    """tau."""
    queue_size: PositiveInt = 512
    """M."""
    num_negatives: NonNegativeInt = 64
    """K, drawn once per optimiser step; the loss starts once the queue holds K. With 0 there is no
    contrast: the loss is 1 - cos(z, zref), the anchor alone."""
    pooling: Pooling = "mean_response"
    """Which hidden states make z. `mean_response` is the mean over the positions that predict
    the response, the last prompt token included."""
    layer: Layer = "final_norm"
    """Last hidden states after the final norm, or before it."""
    queue: Literal["hardest", "recent"] = "hardest"
    """Keep the M hardest rows (Eq. 16) or the M most recent."""
    draw: Literal["uniform", "hardest", "most_similar", "semihard"] = "uniform"
    """Which K of the queue are negatives: at random, the hardest by h, the most similar to each
    row's positive (Fig. 3), or of those only the ones less similar to z than the positive is."""
    negatives: Literal["reference", "current"] = "reference"
    """Which representation of a queued row is the negative: the aligned model's (a valid
    InfoNCE bound) or the fine-tuned model's when it was pushed (Eq. 15 read literally)."""
    exclude_self: bool = True
    """A row is never its own negative (the queue may hold it from an earlier epoch)."""
    center: bool = False
    """Subtract the mean reference of the task before every cosine; a deviation from the paper."""
    max_age: PositiveInt | None = None
    """Optimiser steps after which a queued row expires; none in the paper."""

    def idle_steps(self, rows_a_step: int) -> float:
        """Until the queue holds K rows; infinite where it never does."""
        most = min(self.queue_size, (self.max_age or self.queue_size) * rows_a_step)
        return math.inf if self.num_negatives > most else -(-self.num_negatives // rows_a_step)

    @property
    def readings(self) -> tuple[Reading, ...]:
        """One vector a row."""
        return ((self.pooling, self.layer),)
