"""Models and rows, known by their content."""

from typing import Annotated, ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt

from raycib.config.base import LATER, NOT_IDENTITY, Location, Spec

MADE = "stage:"
"""Begins the source of a model that a stage makes: `stage:KEY@STORE`."""


Template = Literal["own", "chatml"]
Precision = Literal["float32", "bfloat16"]
TODAY = "2024-07-26"
"""The day that chat templates are told: the one that Llama's own have where nobody tells them. With
the true one a sweep that goes on tomorrow would mix two prompts."""
Quantization = Literal["nf4"]
"""NF4: 4 bits a weight, which name one of 16 quantiles of a normal distribution, and a float32 for
each 64 weights, their largest size (Dettmers et al. 2023, QLoRA, arXiv:2305.14314, section 3)."""
Notes = Annotated[tuple[str, ...], NOT_IDENTITY]
"""What was done to files while they were read, for reports."""


class ModelSpec(Spec):
    """The aligned model everything starts from, known by its content."""

    key_name: ClassVar[str] = "ModelSpec"
    source: Location
    """Where it is: `world:aligned`, a folder, a hub id with `@revision`, or `stage:KEY@STORE`."""
    weights: str
    """sha256 over the configuration and the weight files; of a model that a stage makes, the
    stage's key."""
    tokenizer: str
    """sha256 over the tokenizer and its chat template."""
    dtype: Precision = "float32"
    """Of the frozen base; LoRA weights are always float32."""
    template: Template = "own"
    """Of chats: the model's own, or ChatML with one system prompt (CIB paper, C.5)."""
    day: str = ""
    """What a template that prints the date is told; "" where it prints none."""
    quantization: Annotated[Quantization | None, LATER] = None
    """Of the linear layers of the frozen base, its output head left out: from weights of its
    `dtype`, in which products are computed, too. None: weights as they are."""
    capped: Annotated[bool, LATER] = False
    """Whether it caps its attention scores (Gemma 2), as all that have this in their key did."""
    notes: Notes = ()
    """What of its chat template is mended."""


class RowsBase(Spec):
    """Rows known by their content; as they are used, none is longer than `max_length` tokens."""

    name: Location
    """What tables call it."""
    source: Location
    """Where the rows are: `world:open`, a file, or a hub data set."""
    rows: str
    """sha256 over the rows (prompts and responses, in order), without those left out."""
    num_rows: PositiveInt
    """Without those left out."""
    max_length: PositiveInt = 1024
    """Tokens of a row, prompt and response together."""
    left_out: Annotated[tuple[NonNegativeInt, ...], NOT_IDENTITY] = ()
    """Numbers (from 0) of the source's rows that are too long and not used."""
    cut: NonNegativeInt = 0
    """Rows whose response loses its end, but not the end of its turn, to be no longer."""
    notes: Notes = ()


class TaskSpec(RowsBase):
    """Training rows of one task."""

    key_name: ClassVar[str] = "TaskSpec"


class RowsSpec(RowsBase):
    """Rows to ask or to measure on: a benchmark's prompts, or a task's held-out rows."""

    key_name: ClassVar[str] = "RowsSpec"
    max_tokens: PositiveInt = 256
    """Of a generated answer."""
    scorer: Annotated[str | None, NOT_IDENTITY] = None
    """How answers are scored (`raycib.evals.scorers`); None: by the rule that fits the rows."""
