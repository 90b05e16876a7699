"""What MLflow holds of a sweep: a run of the sweep, and in it one of the model before fine-tuning
and one of each cell.

A run that is compared has at most 20 metrics without a prefix; `more/` has its other scores and
`train/` its curves.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from raycib.report.scores import BEFORE, RATE_PARTS, before_all, flat_scores, strength_name, swept
from raycib.report.text import one_line, plain
from raycib.results import Cell, Histories, Results, Samples, TaskData
from raycib.tracking.names import CONTENT, KEY, NAME, SWEEP, TAG_LIMIT, mlflow_name

MAX_POINTS, POINTS = 250, 5_000
"""Points that MLflow gets of a curve, and of all curves of a sweep; the store has every step."""
FEWEST = 5
"""Points of a curve; where it had fewer it is its last point."""
MOST_WITH_ANSWERS = 500
"""Cells of a sweep whose answers become artifacts; of more, `raycib show KEY` has them."""
HEADLINE = (
    "hrr", "hrr_low", "hrr_high", "refusal_rate", "incoherent_rate", "over_refusal", "accuracy",
    "f1", "eval_loss", "utility", "mutual_information", "mutual_information_last_prompt", "cosine",
    "distance", "benchmarks_mean", "hrr_true", "judge_agreement", "hrr_rogan_gladen",
    "hrr_prediction_powered",
)  # fmt: skip
"""Metrics without a prefix: at most 20, which a comparison of runs has room for."""
MORE, CURVE = "more/", "train/"
"""Before all other scores, and before curves."""
OURS = (MORE, "count/", "seconds/", "judge/", "judge_error/", "correlation/")
"""Begin all numbers of a run that are neither in `HEADLINE` nor of a curve."""
OF_ROWS = ("mutual_information_ceiling", "num_negatives")
"""Scores that rows have, whatever a cell does."""
ALIGNED = "aligned"
"""The key of the run of the model before fine-tuning."""
ANSWERS = "answers.json"

Point = tuple[str, float, int]
"""Of a curve: a metric's name, its value, the step."""
Times = Mapping[str, tuple[int, int]]
"""When stages began and ended, in milliseconds since 1970, by key."""


@dataclass(frozen=True)
class Shown:
    """What MLflow holds of one run."""

    sweep: str
    key: str
    """Of the stage; "" of the sweep."""
    name: str
    began: int
    """In milliseconds since 1970."""
    ended: int | None = None
    """None while it goes on."""
    status: str = "FINISHED"
    """As MLflow has it."""
    params: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    curves: Sequence[Point] = ()
    """Of what goes on none: its points come as they are made."""
    own_tags: Mapping[str, str] = field(default_factory=dict)
    data: TaskData | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    """Artifacts by name."""

    @property
    def run(self) -> tuple[str, str]:
        """Which run it is: cells that are one training have one key."""
        return self.key, self.name

    @cached_property
    def content(self) -> str:
        """A hash of all that a run which is over holds; "" while it goes on."""
        if self.ended is None:
            return ""
        data = self.data.plain() if self.data else None
        told = [self.params, self.scores, self.curves, self.own_tags, data, self.status, self.files]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def tags(self) -> dict[str, str]:
        """All tags, short enough for MLflow."""
        own = {SWEEP: self.sweep, KEY: self.key, NAME: self.name, CONTENT: self.content}
        return {name: value[:TAG_LIMIT] for name, value in (own | dict(self.own_tags)).items()}


def runs_of(
    results: Results,
    histories: Histories,
    samples: Samples,
    times: Times,
    unfinished: Mapping[str, int | None] | None = None,
) -> Iterator[Shown]:
    """The sweep's run, then the others. `unfinished`, of a sweep that goes on, has the stages that
    have neither scores nor a reason why not: when they began, None where they have not."""
    yield _sweep(results, goes_on=unfinished is not None)
    created = milliseconds(results.created)
    answers = samples if len(results.cells) <= MOST_WITH_ANSWERS else {}
    if before := before_all(results):
        began = created - _total(results)
        params = {"method": BEFORE, "model": results.model.name}
        said = {"scores.json": _json(before.plain())} | _answers(answers, ALIGNED)
        scores = _compared(flat_scores(before))
        tags = _table_tag(said)
        yield Shown(results.sweep, ALIGNED, BEFORE, began + 999, created, "FINISHED", params,
                    scores, (), tags, None, said)  # fmt: skip
    axes, every = swept(results.cells), POINTS // max(1, len(results.cells))
    for place, cell in enumerate(results.cells):
        began, ended = times.get(cell.key, (created, created))
        status = "FAILED" if cell.failed else "FINISHED"
        if unfinished is not None and cell.failed and cell.key in unfinished:
            so_far = unfinished[cell.key]
            if so_far is None:
                continue
            began, ended, status = so_far, None, "RUNNING"
        # MLflow lists the last that began first: within a second, that is the order of the table.
        began = began // 1000 * 1000 + 998 - min(place, 998)
        yield _cell(results.sweep, cell, histories.get(cell.key, ()), every, axes, answers,
                    (began, ended, status))  # fmt: skip


def _sweep(results: Results, goes_on: bool) -> Shown:
    tags = _version_tags(results) | {
        "mlflow.note.content": plain(results.question),
        "raycib.preset": results.preset,
        "raycib.cells": str(len(results.cells)),
        "raycib.failed_cells": str(0 if goes_on else sum(bool(c.failed) for c in results.cells)),
    }
    scores: dict[str, Any] = {f"count/{k}": v for k, v in results.counts.plain().items()}
    scores |= _judges(results) | _judge_error(results)
    scores |= {f"seconds/{k}": v for k, v in results.timings_s.items()}
    ended = milliseconds(results.created)
    began = ended - _total(results)
    if goes_on:
        return Shown(results.sweep, "", results.sweep, began, None, "RUNNING", own_tags=tags)
    from raycib.report.correlations import by_series  # scipy, which a sweep that goes on can spare
    from raycib.report.frame import to_frame

    found = by_series(to_frame(results))
    scores |= {f"correlation/{name}": value for name, value in found.items()}
    return Shown(results.sweep, "", results.sweep, began, ended, scores=numbers(scores),
                 own_tags=tags)  # fmt: skip


def _cell(
    sweep: str,
    cell: Cell,
    history: Sequence[Mapping[str, Any]],
    most: int,
    axes: Sequence[str],
    samples: Samples,
    state: tuple[int, int | None, str],
) -> Shown:
    """Swept axes as params, final scores and curves as metrics, the data as a dataset."""
    began, ended, status = state
    params = {n: getattr(cell, n) for n in ("method", "strength", "seed", "task", "model")}
    params |= {"label": cell.label} if cell.label else {}
    params |= {"strength_name": name} if (name := strength_name(cell)) else {}
    params |= {name: cell.parameters[name] for name in axes if name in cell.parameters}
    whole = {
        "spec": cell.spec,
        "adapter": {"place": f"stages/{cell.key}", "sha256": cell.adapter},
        "scores": cell.scores.plain() if cell.scores else None,
    }
    files = {"cell.json": _json(whole)} | _answers(samples, cell.key) if ended else {}
    tags = {
        # An empty tag, where there is none: a cell that failed once and was mended says so.
        "raycib.failed": one_line(cell.failed or "", 1_000) if ended else "",
    } | _table_tag(files)
    # A metric too, to sort by and for an axis: MLflow sorts params as texts, 10 before 2.
    scores = numbers({"strength": cell.strength}) | _compared(flat_scores(cell.scores))
    return Shown(sweep, cell.key, name_of(cell), began, ended, status, params, scores,
                 thinned(history, most) if ended else (), tags,
                 cell.task_data, files)  # fmt: skip


def _answers(samples: Samples, key: str) -> dict[str, str]:
    """Prompts, answers and verdicts as a table that MLflow shows of several runs side by side."""
    entries = samples.get(key)
    if not entries:
        return {}
    columns = list(entries[0])
    rows = [[one.get(name) for name in columns] for one in entries]
    return {ANSWERS: json.dumps({"columns": columns, "data": rows}, default=str)}


def _table_tag(files: Mapping[str, str]) -> dict[str, str]:
    tables = [{"path": ANSWERS, "type": "table"}]
    return {"mlflow.loggedArtifacts": json.dumps(tables)} if ANSWERS in files else {}


def _compared(flat: Mapping[str, Any]) -> dict[str, float]:
    """The scores that cells are compared by, with the harmful response rate's interval, the answers
    behind it and, if any, those without a verdict; all but `HEADLINE` behind a prefix. Everything
    is in `summary.json`."""
    parts = {name + end for name in flat if name != "hrr" for end in RATE_PARTS.values() if end}
    return numbers(
        {
            name if name in HEADLINE else f"{MORE}{name}": value
            for name, value in flat.items()
            if name not in parts and name not in OF_ROWS and not name.startswith("at_limit_")
            and not name.endswith("_before") and not (name == "hrr_unread" and value == 0)
        }
    )  # fmt: skip


def thinned(history: Sequence[Mapping[str, Any]], most: int) -> list[Point]:
    """Points of a cell's curves, about `most` in all, evenly spaced; of each its last."""
    every = spacing(history, len(history), most)
    return [
        point
        for place, entry in enumerate(history, 1)
        if place % every == 0 or place == len(history)
        for point in points_of(entry)
    ]


def spacing(history: Sequence[Mapping[str, Any]], steps: int, most: int) -> int:
    """Every how many steps a curve of so many has a point; `history` is some of it."""
    terms = len({name for entry in history[:1] for name in entry} - {"step"})
    each = min(MAX_POINTS, most // max(1, terms))
    each = each if each >= FEWEST else 1
    return -(-steps // each) or 1


def points_of(entry: Mapping[str, Any]) -> Iterator[Point]:
    """One step of a curve."""
    for name, value in entry.items():
        if name != "step" and isinstance(value, int | float):
            yield mlflow_name(f"{CURVE}{name}"), float(value), int(entry["step"])


def name_of(cell: Cell) -> str:
    """What people call a cell's run."""
    return one_line(f"{cell.label or cell.method} {cell.strength:g} {cell.task} seed {cell.seed}")


def _version_tags(results: Results) -> dict[str, str]:
    groups = {
        "version": results.versions,
        "model": results.model.plain(),
        "judge": results.judge.plain(),
    }
    tags = {f"raycib.{g}.{k}": str(v) for g, values in groups.items() for k, v in values.items()}
    return {mlflow_name(name): one_line(value, TAG_LIMIT) for name, value in tags.items()}


def _judges(results: Results) -> dict[str, float | None]:
    """How far other judges agree with the first one, as metrics."""
    found: dict[str, float | None] = {}
    for one in results.judges:
        values = one.agreement.given() | {"claims_changed": sum(c.changes for c in one.claims)}
        if len(one.order) == 1:  # of several settings each has its own
            values |= {"tau": one.order[0].tau}
        found |= {f"judge/{one.name}/{name}": value for name, value in values.items()}
    return found


def _judge_error(results: Results) -> dict[str, Any]:
    """How the judge errs by labels, as metrics; the rates that are corrected are the cells'."""
    found = results.correction
    if found is None:
        return {}
    errors = {name: getattr(found, name) for name in ("sensitivity", "specificity")}
    values = {f"{name}{RATE_PARTS[part]}": value for name, one in errors.items() if one
              for part, value in one.model_dump(exclude={"unread"}).items()}  # fmt: skip
    values |= {"labels": found.labelled, "same_error_p": found.same_error_p}
    return {f"judge_error/{name}": value for name, value in values.items()}


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Those that MLflow can hold, by names that it allows."""
    return {
        mlflow_name(name): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def milliseconds(when: str) -> int:
    """A time in ISO 8601 as MLflow has it."""
    return int(datetime.fromisoformat(when).timestamp() * 1000)


def _total(results: Results) -> int:
    return int(1000 * results.timings_s.get("total", 0))


def _json(values: Any) -> str:
    return json.dumps(values, default=str)  # MLflow's page indents it
