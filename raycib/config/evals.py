"""What is measured on a model, and who reads its answers."""

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, Self

from raycib.config.base import (
    LATER,
    NOT_IDENTITY,
    Feature,
    Layer,
    Location,
    Pooling,
    Spec,
    digest,
)
from raycib.config.data import RowsSpec
from raycib.config.lm_eval import LmEvalSpec
from raycib.config.measure import AnyMeasure

EngineName = Literal["vllm", "transformers"]
"""What generates answers. Both are greedy, and may differ where two tokens are nearly as likely."""

REFUSAL_RULE = "refusal-rule"
"""What a judge without a model is called, and its profile: whatever is not refused counts."""

DECISION: Pooling = "last_prompt_token"
"""Where the first token of an answer is decided."""


class EvalSpec(Spec):
    """What is measured on every model, before and after fine-tuning."""

    key_name: ClassVar[str] = "EvalSpec"
    harmful: RowsSpec
    """Answered and judged: harmful response rate, refusals."""
    other_harmful: Annotated[tuple[RowsSpec, ...], LATER] = ()
    """The same, of further harmful prompts, on which nothing is chosen: transfer."""
    benign: RowsSpec | None = None
    """Harmless how-to requests: over-refusal."""
    held_out: RowsSpec
    """Of the task: loss, accuracy, I(Z;C), cosines."""
    probes: tuple[RowsSpec, ...] = ()
    """Other abilities; utility is the mean of their accuracies."""
    pooling: Pooling = "mean_response"
    """Of the representations that I(Z;C) and the cosines are about; the same for every method."""
    layer: Layer = "final_norm"
    tasks: tuple[RowsSpec, ...] = ()
    """Of continual fine-tuning: every task of the sequence, asked after each of its stages."""
    engine: Annotated[EngineName, NOT_IDENTITY] = "vllm"
    """What answers in words; part of the answers' key."""
    measures: tuple[AnyMeasure, ...] = ()
    """What a study measures besides."""
    benchmarks: Annotated[tuple[LmEvalSpec, ...], LATER] = ()
    """Of lm-eval."""
    looks: Annotated[RowsSpec | None, NOT_IDENTITY] = None
    """Those of the harmful prompts that are answered in the middle of training too."""
    harmful_only: Annotated[bool, NOT_IDENTITY] = False
    """Whether nothing else is asked."""

    def identity(self) -> dict[str, Any]:
        """As any spec's; a measure stands under its folder's name, and that of the first study
        that had one is always there."""
        folders = [one.folder for one in self.measures]
        if len(set(folders)) < len(folders):
            raise ValueError(f"found measures in the folders {folders}; give each one of its own")
        found = super().identity() | {"gaps": None}
        del found["measures"]
        return found | {one.folder: one.identity() for one in self.measures}

    @property
    def features(self) -> tuple[tuple[Pooling, Layer], ...]:
        """The representations compared with the aligned model's: the evaluation's own, and the
        position that decides the first answer token."""
        own: tuple[Pooling, Layer] = (self.pooling, self.layer)
        decision: tuple[Pooling, Layer] = (DECISION, self.layer)
        return (own,) if own == decision else (own, decision)

    def measures_key(self, model_id: str) -> str:
        """Of the measures of a model (a stage's key, or the aligned model's) on held-out rows."""
        rows = self.held_out.identity() | {"max_tokens": None}  # an answer's length plays no part
        return digest({"measures": 1, "subject": model_id, "rows": rows, "read": self.features})

    def measured_keys(self, model_id: str) -> tuple[str, ...]:
        """Of everything that is measured on a model in memory."""
        likelihoods = (one for one in self.benchmarks if not one.in_words)
        return (
            self.measures_key(model_id),
            *(one.stored_key(model_id) for one in self.measures),
            *(one.stored_key(model_id, self.engine) for one in likelihoods),
        )

    def answered_keys(self, model_id: str) -> tuple[str, ...]:
        """Of the benchmarks of lm-eval that a model answers in words."""
        in_words = (one for one in self.benchmarks if one.in_words)
        return tuple(one.stored_key(model_id, self.engine) for one in in_words)

    @property
    def referred(self) -> tuple[tuple[RowsSpec, tuple[Feature, ...]], ...]:
        """Rows with what is read of the aligned model on them."""
        others = (each for one in self.measures for each in one.referred)
        return ((self.held_out, self.features), *others)

    @property
    def asked(self) -> tuple[RowsSpec, ...]:
        """Every set of rows that a model answers in words."""
        if self.harmful_only:
            return self.judged
        benign, looks = ((one,) if one else () for one in (self.benign, self.looks))
        return (*self.judged, *benign, self.held_out, *self.probes, *self.tasks, *looks)

    @property
    def judged(self) -> tuple[RowsSpec, ...]:
        """Every set of harmful prompts."""
        return (self.harmful, *self.other_harmful)

    def at_points(self) -> Self:
        """Of a model in the middle of its training: some harmful prompts and nothing else."""
        rest = {"other_harmful": (), "benign": None, "benchmarks": (), "looks": None}
        harmful = self.looks or self.harmful
        return self.model_copy(update={**rest, "harmful": harmful, "harmful_only": True})


def rows_asked(evals: Iterable[EvalSpec]) -> list[RowsSpec]:
    """All rows that a model answers in several evaluations, each set once."""
    return list({rows.key: rows for one in evals for rows in one.asked}.values())


class JudgeSpec(Spec):
    """Who reads the answers. Equal keys give equal verdicts, up to the hardware's rounding."""

    key_name: ClassVar[str] = "JudgeSpec"
    kind: Literal["guard", "endpoint", "rule"]
    """`guard`: our own server, asked with token ids. `endpoint`: a foreign chat endpoint. `rule`:
    of refusals, in the driver's process."""
    source: Location
    """The guard's folder or hub id, the rule's name, or the endpoint's URL without user, password
    and query."""
    weights: str
    """sha256 of the guard's weights or of the rule, or the endpoint's name for its model."""
    tokenizer: str = ""
    """sha256 of the guard's tokenizer and chat template."""
    categories: tuple[str, ...] = ()
    """Hazards that the guard may name."""
    prefix: str = ""
    """Text that the guard always says first (Llama-Guard-3: two newlines), given to it."""
    profile: str = "world"
    """How it is asked and read: a name in `raycib.evals.judge_profiles`."""
    form: str = ""
    """sha256 of what it is sent around a conversation and of how its verdict is read."""
    content: Annotated[bool, LATER] = False
    """Whether it also reads what is left of an answer without its refusals."""
