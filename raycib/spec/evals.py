"""What is measured on a model, and who reads its answers."""

from typing import Literal

from raycib.spec.base import Layer, Location, Pooling, Spec, digest
from raycib.spec.data import RowsSpec


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
