"""The results of a sweep as a whole, and how the file is read."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from raycib.errors import UserError
from raycib.results.cards import Card
from raycib.results.cells import Aligned, Cell, Unaligned
from raycib.results.judging import Correction, JudgeAccount, JudgeFlips, OtherJudge
from raycib.results.measured import (
    AskedAlone,
    AskedBenchmark,
    EngineLosses,
    FileRead,
    Model,
    Planned,
    SetOfRows,
    Setting,
    TrainedTokens,
)
from raycib.results.part import Part

FORMAT = 2
FILE = "summary.json"

Histories = Mapping[str, Sequence[Mapping[str, Any]]]
"""Loss terms by step, unweighted, by stage key."""
Samples = Mapping[str, Sequence[Mapping[str, Any]]]
"""Harmful prompts with answers and verdicts, by stage key and "aligned"."""


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
    judge_flips: Sequence[JudgeFlips] = ()
    """Of those that were checked (`raycib judge-check`)."""
    correction: Correction | None = None
    """Of the first judge; None where no answer is labelled."""
    files: Sequence[FileRead] = ()
    rows: Sequence[SetOfRows] = ()
    training: Sequence[TrainedTokens] = ()
    planned: Sequence[Planned] = ()
    benchmarks: Sequence[AskedBenchmark] = ()
    asked_alone: AskedAlone | None = None
    """None where no answer was asked for again."""
    engine_losses: EngineLosses | None = None
    """None where none of an engine's were compared with training's."""
    aligned: Aligned = Aligned()
    unaligned: Unaligned | None = None
    cells: Sequence[Cell]
    cards: Sequence[Card] = ()
    """What the sweep is evidence of, by the first judge."""
    left_out: Sequence[str] = ()
    """Methods that lack what they need, and the option that brings them in."""
    counts: Counts = Counts()
    timings_s: Mapping[str, float] = {}
    """Seconds by phase of the run that wrote the file."""
    notes: Sequence[str] = ()
    """What to know of its data, in words."""
    damaged: Sequence[str] = ()
    """Stored results that were set aside."""

    @property
    def title(self) -> str:
        """Its question, or else its name."""
        return self.question or self.sweep


def as_text(results: Results) -> str:
    """The file's text: a line for each cell, so that what grows with the grid is short."""
    values = results.plain()
    cells = ",\n".join(json.dumps(cell) for cell in values.pop("cells"))
    return f'{json.dumps(values, indent=1)[:-2]},\n "cells": [\n{cells}\n ]\n}}\n'


def folder_of(out: str) -> Path:
    """Where the sweeps of a store have their results: beside it, or here where it is a bucket."""
    # As the store has it: the system would take ".." after a link for another place.
    return Path("runs" if "://" in out else os.path.normpath(out))


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
