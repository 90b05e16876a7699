"""A stage (one adapter, or model, trained on one task) and a run (one cell of a grid)."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    model_validator,
)

from raycib.config.base import LATER, NOT_IDENTITY, Location, Spec, digest
from raycib.config.data import MADE, ModelSpec, Precision, TaskSpec
from raycib.config.evals import EvalSpec
from raycib.config.menu import read_method
from raycib.config.method import Method, PlainLoRA

AnyMethod = Annotated[SerializeAsAny[Method], BeforeValidator(read_method)]
"""A method of the menu: written with all of its own settings, and read as what its kind names."""
Beta = Annotated[float, Field(ge=0, lt=1)]


class LoRASpec(Spec):
    """Shape of the adapter. CIB paper: rank 32, alpha 64, targets unstated."""

    key_name: ClassVar[str] = "LoRASpec"
    rank: PositiveInt = 32
    alpha: PositiveFloat = 64.0
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip


class TrainerSpec(Spec):
    """How every method is trained. Defaults are the CIB paper's where it states them (C.2)."""

    key_name: ClassVar[str] = "TrainerSpec"
    learning_rate: PositiveFloat = 1e-4
    batch_size: PositiveInt = 64
    """Rows per optimiser step, over all micro-batches and workers."""
    epochs: PositiveInt = 1
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up; `linear` and `cosine` end at zero."""
    max_grad_norm: PositiveFloat = 1.0
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    precision: Annotated[Precision, LATER] = "float32"
    """What a stage that trains all weights computes with. bfloat16: each pass reads its weights
    rounded, and its gradients are summed in float32, in which weights and optimiser stay. An
    adapter has the precision of its base."""


class StageSpec(Spec):
    """One adapter fine-tuned on one task by one method from the base or a parent's adapter; or a
    whole model, such as the aligned one, made from another."""

    key_name: ClassVar[str] = "StageSpec"
    model: ModelSpec
    task: TaskSpec
    method: AnyMethod = PlainLoRA()
    lora: LoRASpec | None = LoRASpec()
    """Shape of the adapter; None trains all of the model's weights, which makes a new model."""
    trainer: TrainerSpec = TrainerSpec()
    seed: Annotated[int, Field(ge=0)] = 0
    """Of LoRA's initial weights, the order of the data, and the negatives."""
    parent: Self | None = None
    fresh: bool = False
    """Train a new adapter on top of the parent's, which stays frozen, instead of going on with
    the parent's own."""

    @model_validator(mode="after")
    def _fits_what_it_starts_from(self) -> Self:
        kind, parent = self.method.kind, self.parent
        if self.lora is not None and self.trainer.precision != "float32":
            raise ValueError(
                "an adapter has the precision of its base: leave trainer.precision out"
            )
        if self.lora is None and self.model.quantization is not None:
            raise ValueError(
                f"a stage that trains all weights (lora=None) cannot train those of a model in "
                f"{self.model.quantization}: leave model.quantization out"
            )
        if self.lora is None and (parent is not None or not self.method.is_plain):
            raise ValueError(
                f"{kind}: a stage that trains all weights (lora=None) starts from a model and has "
                "no method but plain fine-tuning"
            )
        if parent is None:
            if self.fresh or self.method.derived:
                raise ValueError(f"{kind}: a stage that builds on another needs a parent")
            return self
        if parent.lora is None:
            raise ValueError(f"{kind}: its parent is a model, not an adapter: start from it")
        if parent.model.key != self.model.key:
            raise ValueError(f"{kind}: its parent was trained from another model")
        if self.method.derived and self.method.is_plain:
            raise ValueError(f"{kind} at strength zero is its parent: use that stage")
        if self.method.derived and self.fresh:
            raise ValueError(f"{kind} is derived from its parent's adapter: leave fresh out")
        if self.fresh:
            if self.method.bounds_whole_update and not self.method.is_plain:
                raise ValueError(
                    f"{kind} bounds all that is added to the aligned model, of which its parent's "
                    "part would be frozen: leave fresh out"
                )
            return self
        if self.method.starts_itself:
            raise ValueError(
                f"{kind} has a start of its own and cannot go on from a parent's adapter: set "
                "fresh, to train on top of it"
            )
        if self.rank != parent.exported_rank:
            raise ValueError(
                f"{kind}: its parent's adapter has rank {parent.exported_rank}, not "
                f"{self.rank}: set fresh, to train on top of it, or that rank"
            )
        return self

    @property
    def method_in_effect(self) -> Method:
        """What the method comes to here: plain LoRA at strength zero, and for a method about
        stacked adapters also where nothing lies below."""
        alone = self.method.stacked and not self.fresh
        return PlainLoRA() if self.method.is_plain or alone else self.method

    def identity(self) -> dict[str, Any]:
        """As any spec's, with the method as it is in effect, so that strength zero is plain LoRA,
        and the parent by its key."""
        return super().identity() | {
            "method": self.method_in_effect.identity(),
            "parent": self.parent.key if self.parent else None,
        }

    @property
    def steps(self) -> int:
        """Optimiser steps: the last batch of an epoch may be short; none where the adapter is
        derived."""
        if self.method_in_effect.derived:
            return 0
        rows = self.method_in_effect.rows_trained(self.task.num_rows)
        return -(-rows // self.trainer.batch_size) * self.trainer.epochs

    def point_key(self, step: int) -> str:
        """Of its adapter as it is after an optimiser step in the middle of its training."""
        return digest({"point": 1, "stage": self.key, "step": step})

    @property
    def rank(self) -> int:
        """Of the factors that are trained; 0 where there are none."""
        return self.lora.rank if self.lora else 0

    @property
    def scale(self) -> float:
        """Of the factors' product: alpha / rank."""
        return self.lora.alpha / self.lora.rank if self.lora else 1.0

    @property
    def exported_rank(self) -> int:
        """Rank of the adapter that leaves this stage."""
        below = self.parent.exported_rank if self.parent and self.fresh else 0
        return below + self.method_in_effect.exported_rank(self.rank)

    def made_model(self, store: str) -> ModelSpec:
        """The model that a stage which trains all weights leaves in the store at `store`: known
        before it exists, by what makes it."""
        return ModelSpec(
            source=f"{MADE}{self.key}@{store}",
            weights=self.key,
            tokenizer=self.model.tokenizer,
            dtype=self.model.dtype,
            template=self.model.template,
            day=self.model.day,
            capped=self.model.capped,
            notes=self.model.notes,
        )


class RunSpec(Spec):
    """One cell of a grid: a chain of stages (oldest first) and what to measure after each."""

    key_name: ClassVar[str] = "RunSpec"
    stages: tuple[StageSpec, ...]
    evals: EvalSpec
    compared: Annotated[AnyMethod | None, NOT_IDENTITY] = None
    """The method that this cell stands for, where it is not the last stage's."""
    label: Location = ""
    """What tables call it; "" leaves that to the method's kind."""
    hrr_every: Annotated[PositiveInt | None, NOT_IDENTITY] = None
    """Optimiser steps between two points of the last stage at which harmful prompts are answered;
    None: at its end alone. It changes nothing of what is trained."""

    @property
    def points(self) -> dict[int, str]:
        """These points, without the end: the keys of the adapters by their steps."""
        steps = range(self.hrr_every, self.final.steps, self.hrr_every) if self.hrr_every else ()
        return {step: self.final.point_key(step) for step in steps}

    @property
    def final(self) -> StageSpec:
        """The last stage: what the cell's scores are about."""
        return self.stages[-1]

    @property
    def adapters(self) -> tuple[StageSpec, ...]:
        """The stages that fine-tune an adapter; the ones before them make the model it is for."""
        return tuple(stage for stage in self.stages if stage.lora is not None)

    @property
    def method(self) -> Method:
        """The method that the cell stands for, plain LoRA at strength zero."""
        if self.compared is not None:
            return self.compared
        return self.final.method_in_effect
