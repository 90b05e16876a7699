"""The conditional information bottleneck (CIB paper, section 4)."""

import math
from typing import Any, ClassVar, Literal, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from raycib.config.base import Feature, Layer, Pooling
from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import About, Method
from raycib.hooks import Hooks


class CIB(Method):
    """Conditional information bottleneck: a contrastive pull to the aligned model's own
    representations, with a queue of hard negatives (CIB paper, Eq. 14-16)."""

    about: ClassVar[About] = About(
        name="CIB",
        paper="Safety LLMs fine-tuning via Conditional Information Bottleneck, Eq. 14-16",
        strength="lam: nats of the contrastive loss against nats per token of the task, without "
        "unit",
        passes="none with cached references, else +1 forward without the head",
        needs="nothing",
        deviations="the paper states four selection rules and three numbers of negatives: each is "
        "an option; by default negatives are the aligned model's states, a valid bound",
        color="#0072B2",
        mark="s",
        acts_by="representations that tell as much as possible of the aligned model's own, a "
        "higher I(Z;C) (section 4, Eq. 14-16)",
        mechanism={"mutual_information": "higher", "cosine": "higher"},
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
    def features(self) -> tuple[Feature, ...]:
        """One vector a row."""
        return ((self.pooling, self.layer),)

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """Every rule and pool; a queue that overflows at the third step of 16 rows."""
        small: dict[str, Any] = {"queue_size": 32, "num_negatives": 8}
        return {
            "": cls(lam=1.0, **small),
            "hardest at the last prompt token": cls(
                lam=2.0, draw="hardest", pooling="last_prompt_token", layer="before_norm", **small
            ),
            "recent and current": cls(
                lam=1.0,
                queue="recent",
                negatives="current",
                max_age=2,
                pooling="last_token",
                **small,
            ),
            "most similar": cls(
                lam=0.5, draw="most_similar", pooling="mean_all", exclude_self=False, **small
            ),
            "semihard and centred": cls(lam=1.0, draw="semihard", center=True, **small),
            "anchor alone": cls(lam=1.0, num_negatives=0),
        }

    def build(self) -> Hooks:
        """The contrastive term beside the task loss."""
        from raycib.objectives.cib import ContrastiveBottleneck

        return Hooks(penalty=lambda start: ContrastiveBottleneck(self, start.dim))
