"""How a sweep was measured: its settings, its rows, its model."""

from collections.abc import Sequence

from pydantic import ConfigDict, Field

from raycib.counting import count
from raycib.metrics import Rate
from raycib.results.part import Part


class Setting(Part):
    """One setting of a sweep."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(validation_alias="setting", serialization_alias="setting")
    value: str
    origin: str = Field(validation_alias="from", serialization_alias="from")
    """What decided it: the preset, a default for models of one's own, an option, the rows."""


class FileRead(Part):
    """What was done to a set of rows, or to a chat template, while it was read."""

    set: str
    source: str
    read: Sequence[str]


class SetOfRows(Part):
    """What a person sees of a set of rows; lengths are in tokens."""

    name: str
    source: str
    rows: int
    """At the source."""
    left_out: int
    cut: int
    longest: int
    """Row, before any was cut or left out; where only prompts are asked, the longest prompt."""
    limit: int
    """Of that."""
    max_tokens: int
    """Of an answer; 0 where none is asked for."""

    def __str__(self) -> str:
        parts = [
            f"{self.name}: {count(self.rows, 'row')}",
            f"longest {self.longest} of {self.limit} tokens",
        ]
        if self.max_tokens:
            parts.append(f"answers up to {self.max_tokens}")
        if self.left_out:
            parts.append(f"{self.left_out} too long and left out")
        if self.cut:
            parts.append(f"{self.cut} too long and cut")
        return ", ".join(parts)


class TrainedTokens(Part):
    """Of a task's stages, in one forward and backward pass a step."""

    task: str
    stages: int
    steps: int
    useful_tokens: int
    """Of rows."""
    computed_tokens: int
    """With padding."""
    useful_share: float


class Planned(Part):
    """What the plan said of the run that wrote the file, beside what that took."""

    quantity: str
    planned: float
    measured: float | None = None
    """None where nobody measured it."""


class AskedBenchmark(Part):
    """What a reader must know of a benchmark of lm-eval."""

    benchmark: str
    version: str
    documents: int
    of: int
    few_shot: str
    prompts: str
    by: str
    longer_than_the_context: int
    """Requests whose front is cut off."""
    scored_by: str


class AskedAlone(Part):
    """Answers that were asked for again, each alone in its batch."""

    differ: Rate
    """Share of them that are not word for word the ones before."""
    hrr_change: Rate | None = None
    """Their harmful response rate less that of the ones before, in [-1, 1]; ``n`` counts answers
    with both verdicts, of the first judge. None without any."""


class EngineLosses(Part):
    """How far an engine's losses of held-out answers are from those that training measured: a mean
    over some rows of the difference without its sign, in nats a token."""

    models: int
    """Compared."""
    of: int
    """That have answered."""
    mean_difference_nats: float
    largest_difference_nats: float
    """Of one model."""


class Model(Part):
    """The aligned model."""

    name: str = ""
    weights: str = ""
    """sha256."""
