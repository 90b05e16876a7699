"""The results of a sweep: what `summary.json` holds, for whoever writes it or reads it.

A study with more has subclasses of these models. A field that came after format 2 has a default,
and one that a reader does not know is kept as it is: it is a study's of somebody else, or a later
version's. Rates are in [0, 1], losses and information in nats.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raycib.errors import UserError
from raycib.metrics import Rate

FORMAT = 2
FILE = "summary.json"

Number = float | int
Histories = Mapping[str, Sequence[Mapping[str, Any]]]
"""Loss terms by step, unweighted, by stage key."""
Samples = Mapping[str, Sequence[Mapping[str, Any]]]
"""Harmful prompts with answers and verdicts, by stage key and "aligned"."""


class Part(BaseModel):
    """A part of the file."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    def given(self) -> dict[str, Any]:
        """The fields that it has, by name: what was never set stays absent."""
        return {name: value for name, value in self if name in self.model_fields_set}

    def plain(self) -> dict[str, Any]:
        """The same as plain JSON, as the file has it."""
        return self.model_dump(exclude_unset=True, by_alias=True, serialize_as_any=True)

    def but(self, **fields: Any) -> Self:
        """A copy with other values. Raises `ValueError` for one of a wrong type."""
        return type(self).model_validate(self.given() | fields)


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
        parts = [f"{self.name}: {self.rows} rows", f"longest {self.longest} of {self.limit} tokens"]
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
    few_shot: int | str
    prompts: str
    by: str
    longer_than_the_context: int
    """Requests whose front is cut off."""
    scored_by: str


class Model(Part):
    """The aligned model."""

    name: str = ""
    weights: str = ""
    """sha256."""


class JudgeAccount(Part):
    """Who judged, and what a reader must know of the verdicts."""

    name: str = ""
    key: str = ""
    profile: str = ""
    protected: bool = False
    """Whether no answer can act on it as an instruction."""
    sanitised: int = 0
    """Conversations with text that was taken out before an endpoint saw them."""
    unread: Mapping[str, int] = {}
    """Conversations without a verdict, by why."""
    in_windows: int = 0
    """Conversations read in overlapping parts."""
    windows: int = 0
    """Readings in all."""
    unknown_categories: int = 0
    """Verdicts that name a category that it was not asked about."""
    notes: Mapping[str, int] = {}
    elsewhere: Sequence[str] = ()
    """Other addresses where some verdicts were given."""
    out_of_its_world: bool = False
    """Whether it is the embedded world's and what was asked is not of that world."""


class Agreement(Part):
    """Of two judges: counts of conversations, and what follows of those that both read."""

    n: int
    """Read by both."""
    both_safe: int
    both_unsafe: int
    only_first_unsafe: int
    only_other_unsafe: int
    first_unread: int
    """By the first judge, whatever the other says."""
    other_unread: int
    agreement: float | None
    """Share of the ``n`` in which they say the same; None where n is 0."""
    kappa: float | None
    """Cohen's; None where it is not defined: both judges say the same of everything."""
    kappa_low: float | None
    kappa_high: float | None
    """Ends of the 95 % interval; None where there is no variance to make one of."""


class RowOrder(Part):
    """How far two judges put the rows of a setting into the same order."""

    setting: str = ""
    rows: int
    tau: float | None
    """Kendall's tau-b; None below two rows, or where a judge tells none apart."""
    swapped: int
    """Pairs of rows whose order is the other way round."""
    pairs: int


class OtherClaim(Part):
    """One of the first judge's claims under another."""

    claim: str
    first: bool | None
    """Whether it holds by the first judge; None where that cannot tell."""
    other: bool | None
    changes: bool
    evidence: str
    """By the other."""


class OtherJudge(Part):
    """What another judge says of the same answers."""

    name: str
    against: str
    """The first judge's name."""
    judge: JudgeAccount
    agreement: Agreement
    order: Sequence[RowOrder]
    claims: Sequence[OtherClaim]


class CorrectedRow(Part):
    """A harmful response rate, corrected for the judge's error."""

    method: str
    """The variant, or the model before fine-tuning."""
    cells: Sequence[str]
    """Their keys, or "aligned"."""
    labelled: int
    """Answers that have a label."""
    hrr: Rate
    """As judged; a mean over seeds. ``n`` counts prompts."""
    rogan_gladen: Rate | None = None
    """By one error for all rows; None where that is not supported."""
    prediction_powered: Rate | None = None
    """By the row's own labels; None where a verdict that occurs has none."""


class CorrectedDifference(Part):
    """A row's harmful response rate less another's, on the same prompts; in [-1, 1]. ``n`` counts
    prompts."""

    method: str
    against: str
    hrr: Rate
    """As judged."""
    rogan_gladen: Rate | None = None
    prediction_powered: Rate | None = None


class Correction(Part):
    """What labels say of the judge's error, and the rates that are corrected by it."""

    labels: str
    """Where they come from."""
    labelled: int
    """Distinct answers with a label."""
    sensitivity: Rate | None = None
    """Share of harmful answers that are judged harmful; ``n`` counts labels. None: not known."""
    specificity: Rate | None = None
    """Share of harmless answers that are judged safe."""
    same_error_p: float | None = None
    """Of one error for all rows; None where there is nothing to compare."""
    not_pooled: str = ""
    """Why no rate is corrected by one error for all."""
    rows: Sequence[CorrectedRow] = ()
    differences: Sequence[CorrectedDifference] = ()
    """Of each row to plain LoRA on the same model and task."""


class Scores(Part):
    """Of one model; None where something was not measured."""

    over_refusal: Rate | None = None
    hrr: Rate | None = None
    hrr_by_judge: Mapping[str, Rate | None] = {}
    """By the names of other judges."""
    hrr_rogan_gladen: Rate | None = None
    """Corrected by one error of the judge for all models, where people labelled answers."""
    hrr_prediction_powered: Rate | None = None
    """Corrected by the labels of this model's own answers."""
    refusal_rate: Rate | None = None
    incoherent_rate: Rate | None = None
    hrr_true: Rate | None = None
    judge_agreement: Rate | None = None
    accuracy: Rate | None = None
    f1: float | None = None
    has_answer: Rate | None = None
    no_answer: Rate | None = None
    f1_has_answer: float | None = None
    accuracies: Mapping[str, Rate | None] = {}
    """By task, where several are asked."""
    utility: float | None = None
    utility_by_probe: Mapping[str, Rate | None] = {}
    benchmarks: Mapping[str, Rate] = {}
    """Of lm-eval, by task, metric and filter: those that tables show."""
    benchmark_details: Mapping[str, Rate] = {}
    """All others."""
    benchmarks_mean: float | None = None
    """Of the shown ones that are shares."""
    at_limit: Mapping[str, int] = {}
    """By set, answers that ended at the limit of tokens; of how many by its name and `_n`."""
    eval_loss: float | None = None
    mutual_information: float | None = None
    mutual_information_last_prompt: float | None = None
    mutual_information_ceiling: float | None = None
    num_negatives: int | None = None
    cosine: float | None = None
    negative_cosine: float | None = None
    distance: float | None = None
    mutual_information_before: float | None = None
    mutual_information_last_prompt_before: float | None = None
    negative_cosine_before: float | None = None
    eval_loss_before: float | None = None


class Aligned(Part):
    """The model before fine-tuning."""

    scores: Scores | None = None


class Unaligned(Part):
    """The base that was aligned first."""

    name: str
    scores: Scores | None
    """How safe it is."""


class Cost(Part):
    """What a cell took."""

    steps: int | None = None
    """Of the optimiser, in the whole chain of stages."""
    rank: int | None = None
    """Of the exported adapter."""
    trained: bool | None = None
    """Whether it was; else it is derived from a trained adapter."""


class TaskData(Part):
    """The rows of a cell's task."""

    name: str = ""
    source: str = ""
    rows: int = 0
    digest: str = ""
    """sha256."""


class Cell(Part):
    """A method at a strength with a seed."""

    key: str
    """Of its last stage."""
    adapter: str | None = None
    """sha256 of its weights."""
    method: str
    method_name: str | None = None
    label: str | None = None
    """What tables call it, where its method does not say all."""
    strength: float
    seed: int
    task: str
    model: str
    failed: str | None = None
    """Why it has no scores."""
    safety_data: bool = False
    """Whether it trains on refusals or on harmful prompts as well."""
    cost: Cost = Cost()
    parameters: Mapping[str, Any] = {}
    scores: Scores | None = None
    task_data: TaskData = TaskData()
    spec: Mapping[str, Any] = {}
    """The last stage's."""


class Counts(Part):
    """What was asked for and done: `OF_THE_GRID` however many runs it took, the others by the run
    that wrote the file."""

    stages: int = 0
    stages_trained: int = 0
    stages_reused: int = 0
    stages_asked: int = 0
    stages_shared: int = 0
    stages_failed: int = 0
    cells_failed: int = 0
    reference_forwards: int = 0
    distinct_examples: int = 0
    tokens_useful: int | None = None
    """Trained on; None while some stage is not counted whole."""
    tokens_computed: int | None = None
    engine_starts: int = 0
    judge_calls: int = 0


class Results(Part):
    """All of it."""

    format: int = FORMAT
    sweep: str
    question: str = ""
    study: str = ""
    """The study's name."""
    preset: str = ""
    settings: Sequence[Setting] = ()
    created: str = ""
    """When, in ISO 8601."""
    versions: Mapping[str, str] = {}
    model: Model = Model()
    judge: JudgeAccount = JudgeAccount()
    judges: Sequence[OtherJudge] = ()
    """All but the first."""
    correction: Correction | None = None
    """Of the first judge; None where no answer is labelled."""
    files: Sequence[FileRead] = ()
    rows: Sequence[SetOfRows] = ()
    training: Sequence[TrainedTokens] = ()
    planned: Sequence[Planned] = ()
    benchmarks: Sequence[AskedBenchmark] = ()
    aligned: Aligned = Aligned()
    unaligned: Unaligned | None = None
    cells: Sequence[Cell]
    left_out: Sequence[str] = ()
    """Methods that lack what they need, and the option that brings them in."""
    counts: Counts = Counts()
    timings_s: Mapping[str, float] = {}
    """Seconds by phase of the run that wrote the file."""
    damaged: Sequence[str] = ()
    """Stored results that were set aside."""

    @property
    def title(self) -> str:
        """Its question, or else its name."""
        return self.question or self.sweep


def read_results(path: Path) -> Results:
    """A sweep's results; `path` is the file or the folder that holds it. Raises `UserError` for
    what is not of this format."""
    file = path / FILE if path.is_dir() else path
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{file}: cannot be read ({error}); run the sweep again") from error
    return results_of(values, str(file))


def results_of(values: Any, where: str = "summary", kind: type[Results] = Results) -> Results:
    """Results from plain JSON, as a study's `kind`; `where` is said of them in an error."""
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise UserError(
            f"{where} has format {found!r}, this version reads {FORMAT}; run the sweep again, "
            "which only reads what is stored"
        )
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        [first, *_] = error.errors()
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{where}: {place}: {first['msg']}; run the sweep again, which only reads what is "
            "stored"
        ) from error
