"""Every frozen spec and its key.

A spec is data that names itself: two specs that would give the same result share a key on every
machine, and a field that cannot change the result (a path, a display name) is marked `Location`
and left out of it. No torch here: specs are read by the driver, the command line and the analysis.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

RESULTS_VERSION = 1
"""Part of every key; raised whenever the same spec would give another result than before."""

_NOT_IDENTITY = "raycib: where or how it is called, never part of a key"
Location = Annotated[str, _NOT_IDENTITY]

Pooling = Literal["mean_response", "last_prompt_token", "last_token", "mean_all"]
Layer = Literal["final_norm", "before_norm"]


class Spec(BaseModel):
    """Frozen, strict data: a misspelt field is an error, and equal data have equal keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    def identity(self) -> dict[str, Any]:
        """The fields that can change a result, as plain JSON values."""
        found: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            if _NOT_IDENTITY in field.metadata:
                continue
            found[name] = _plain(getattr(self, name))
        return found

    @property
    def key(self) -> str:
        """sha256 of the identity as canonical JSON, 64 hex digits."""
        return digest({"kind": type(self).__name__, "version": RESULTS_VERSION, **self.identity()})

    @property
    def short(self) -> str:
        """The first 12 digits of the key, for people."""
        return self.key[:12]


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.identity()
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 1, 1.0 and -0.0, 0 are equal, and so are specs that hold them
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def digest(value: Any) -> str:
    """sha256 of a JSON value in canonical form (sorted keys, no spaces, shortest floats)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()


class ModelSpec(Spec):
    """The aligned model everything starts from, known by its content."""

    source: Location
    """Where it is: `world:aligned`, a folder, or a hub id with `@revision`."""
    weights: str
    """sha256 over the configuration and the weight files."""
    tokenizer: str
    """sha256 over the tokenizer and its chat template."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the frozen base; LoRA weights are always float32."""


class TaskSpec(Spec):
    """Training rows of one task, known by their content."""

    name: Location
    """What tables call it."""
    source: Location
    """Where the rows are: `world:open`, a file, or a hub data set."""
    rows: str
    """sha256 over the rows (prompts and responses, in order)."""
    num_rows: PositiveInt
    max_length: PositiveInt = 1024
    """Tokens; a longer example loses the end of its response."""


class LoRASpec(Spec):
    """Shape of the adapter. CIB paper: rank 32, alpha 64, targets unstated."""

    rank: PositiveInt = 32
    alpha: PositiveFloat = 64.0
    targets: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip


class TrainerSpec(Spec):
    """How every method is trained. Defaults are the CIB paper's where it states them (C.2)."""

    learning_rate: PositiveFloat = 1e-4
    batch_size: PositiveInt = 64
    """Rows per optimiser step, over all micro-batches and workers."""
    epochs: PositiveInt = 1
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up; `linear` and `cosine` end at zero."""
    max_grad_norm: PositiveFloat = 1.0
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[float, float] = (0.9, 0.999)


class PlainLoRA(Spec):
    """Standard LoRA supervised fine-tuning: what every method is at strength zero."""

    kind: Literal["lora"] = "lora"

    @property
    def strength(self) -> float:
        """Always 0."""
        return 0.0

    def reduced(self) -> "MethodSpec":
        """Itself."""
        return self


class CIB(Spec):
    """Conditional information bottleneck: a contrastive pull to the aligned model's own
    representations, with a queue of hard negatives (CIB paper, Eq. 14-16)."""

    kind: Literal["cib"] = "cib"
    lam: NonNegativeFloat = 5.0
    """lambda: weight of the contrastive term; 0 is plain LoRA."""
    temperature: PositiveFloat = 0.2
    """tau."""
    queue_size: PositiveInt = 512
    """M."""
    num_negatives: PositiveInt = 64
    """K, drawn once per optimiser step; the loss starts once the queue holds K."""
    pooling: Pooling = "mean_response"
    """Which hidden states make z. `mean_response` is the mean over the positions that predict
    the response, the last prompt token included."""
    layer: Layer = "final_norm"
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

    @property
    def strength(self) -> float:
        """lambda."""
        return self.lam

    def reduced(self) -> "MethodSpec":
        """Plain LoRA at lambda = 0, else itself."""
        return PlainLoRA() if self.lam == 0 else self


MethodSpec = Annotated[PlainLoRA | CIB, Field(discriminator="kind")]


class StageSpec(Spec):
    """One adapter fine-tuned on one task by one method from the base or a parent's adapter."""

    model: ModelSpec
    task: TaskSpec
    method: MethodSpec = PlainLoRA()
    lora: LoRASpec = LoRASpec()
    trainer: TrainerSpec = TrainerSpec()
    seed: Annotated[int, Field(ge=0)] = 0
    """Of LoRA's initial weights, the order of the data, and the negatives."""
    parent: Self | None = None

    def identity(self) -> dict[str, Any]:
        """As any spec's, with the method reduced, so that strength zero is plain LoRA, and the
        parent by its key."""
        return super().identity() | {
            "method": self.method.reduced().identity(),
            "parent": self.parent.key if self.parent else None,
        }

    @property
    def steps(self) -> int:
        """Optimiser steps: the last batch of an epoch may be short."""
        return -(-self.task.num_rows // self.trainer.batch_size) * self.trainer.epochs


class RowsSpec(Spec):
    """Rows to ask or to measure on: a benchmark's prompts, or a task's held-out rows."""

    name: Location
    """What tables call it."""
    source: Location
    rows: str
    """sha256 over the rows."""
    num_rows: PositiveInt
    max_length: PositiveInt = 1024
    max_tokens: PositiveInt = 256
    """Of a generated answer."""


class EvalSpec(Spec):
    """What is measured on every model, before and after fine-tuning."""

    harmful: RowsSpec
    """Answered and judged: harmful response rate, refusals."""
    benign: RowsSpec | None = None
    """Harmless how-to requests: over-refusal."""
    held_out: RowsSpec
    """Of the task: loss, accuracy, I(Z;C), cosines."""
    probes: tuple[RowsSpec, ...] = ()
    """Other abilities; utility is the mean of their accuracies."""
    pooling: Pooling = "mean_response"
    """Of the representations that I(Z;C) and the cosines are about; the same for every method."""
    layer: Layer = "final_norm"

    @property
    def readings(self) -> tuple[tuple[Pooling, Layer], ...]:
        """The representations compared with the aligned model's: the evaluation's own, and the
        position that decides the first answer token."""
        own: tuple[Pooling, Layer] = (self.pooling, self.layer)
        decision: tuple[Pooling, Layer] = ("last_prompt_token", self.layer)
        return (own,) if own == decision else (own, decision)

    def measures_key(self, subject: str) -> str:
        """Of the measures of a model (a stage's key, or the aligned model's) on held-out rows."""
        rows = self.held_out.identity() | {"max_tokens": None}  # an answer's length plays no part
        return digest({"measures": 1, "subject": subject, "rows": rows, "read": self.readings})

    @property
    def asked(self) -> tuple[RowsSpec, ...]:
        """Every set of rows that a model answers in words."""
        benign = (self.benign,) if self.benign else ()
        return (self.harmful, *benign, self.held_out, *self.probes)


class JudgeSpec(Spec):
    """Who reads the answers. Equal keys give equal verdicts, up to the hardware's rounding."""

    kind: Literal["guard", "endpoint"]
    """`guard`: our own server, asked with token ids. `endpoint`: a foreign chat endpoint."""
    source: Location
    """The guard's folder or hub id, or the endpoint's URL."""
    weights: str
    """sha256 of the guard's weights, or the endpoint's name for its model."""
    tokenizer: str = ""
    """sha256 of the guard's tokenizer and chat template."""
    categories: tuple[str, ...] = ()
    """Hazards that the guard may name."""
    prefix: str = ""
    """Text that the guard always says first (Llama-Guard-3: two newlines), given to it."""


class RunSpec(Spec):
    """One cell of a grid: a chain of stages (oldest first) and what to measure after each."""

    stages: tuple[StageSpec, ...]
    evals: EvalSpec

    @property
    def final(self) -> StageSpec:
        """The last stage: what the cell's scores are about."""
        return self.stages[-1]
