"""A sweep as MLflow shows it: one run for the sweep and, inside it, one for each cell.

MLflow is known here and in ``mlflow_runs`` alone, and only while ``track`` runs. The stored results
are the truth and this a view of them: it can be made again at any time, and a server that is down
costs nothing but the view. Runs are found again by their tags, so that a second call updates what
the first one made.
"""

import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from raycib.mlflow_database import add
from raycib.mlflow_runs import (
    CONTENT,
    KEY,
    SWEEP,
    TAG_LIMIT,
    Shown,
    experiment_of,
    mlflow_name,
    runs_of,
    send,
    send_files,
    update,
)
from raycib.mlflow_session import sqlite_file, sqlite_uri, tracking_room, without_password
from raycib.report.scores import RATE_PARTS, aligned_scores, flat_scores, swept
from raycib.report.text import one_line, plain
from raycib.results import Cell, Histories, Results

MAX_POINTS, POINTS = 250, 5_000
"""Points that MLflow gets of a curve, and of all curves of a sweep; the store has every step."""
OF_ROWS = ("mutual_information_ceiling", "num_negatives")
"""Scores that rows have, whatever a cell does."""
DATABASE_TRIES = 3

log = logging.getLogger(__name__)


def default_uri(folder: Path) -> str:
    """The tracking store for results in ``folder``: MLFLOW_TRACKING_URI, or a file in it."""
    chosen = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    return chosen or sqlite_uri(folder.resolve() / "mlflow.db")


def track(
    results: Results,
    histories: Histories,
    exhibits_folder: Path,
    uri: str | None = None,
) -> str | None:
    """Shows a sweep in MLflow and returns the address of its run; None where that failed.

    ``exhibits_folder`` is the sweep's folder, ``DIR/<sweep>``; its tables, figures and report
    become artifacts of the sweep's run. Without ``uri`` the store is MLFLOW_TRACKING_URI or
    ``DIR/mlflow.db``, with artifacts in ``DIR/mlartifacts``. The experiment is
    MLFLOW_EXPERIMENT_NAME or "raycib".

    Never raises: what goes wrong is one warning in the log, and the results stay in the store.
    """
    place = uri or default_uri(exhibits_folder.parent)
    try:
        _refuse_nowhere(place)
        with tracking_room(place):
            return _track(results, histories, exhibits_folder, place)
    except Exception as error:  # a view must never cost a result, whatever MLflow throws
        log.warning(
            "sweep %s is not in MLflow at %s; results are stored, track it later (%s: %s)",
            one_line(results.sweep),
            without_password(place),
            type(error).__name__,
            one_line(without_password(str(error)), 160),
        )
        return None


def _refuse_nowhere(uri: str) -> None:
    """MLflow takes a word without a scheme for a folder, which it makes and then refuses to use;
    a database in memory would be gone at the end."""
    if not re.match(r"databricks|[\w+.-]+:", uri):
        raise ValueError("no address: give http://..., or sqlite:///FILE with three slashes")
    if uri.startswith("sqlite") and sqlite_file(uri) is None:
        raise ValueError("no file: give sqlite:///FILE with three slashes")


def _track(results: Results, histories: Histories, folder: Path, uri: str) -> str:
    from mlflow import MlflowClient
    from mlflow.store.db import utils

    utils.MAX_RETRY_COUNT = DATABASE_TRIES  # its ten tries to open a database take two minutes
    client = MlflowClient(tracking_uri=uri)
    experiment = experiment_of(client, uri)
    known = runs_of(client, experiment, results.sweep)
    created = _milliseconds(results.created)
    versions = _version_tags(results)

    parent = known.get("") or client.create_run(
        experiment,
        start_time=created,
        run_name=results.sweep,
        tags={SWEEP: results.sweep, KEY: ""},
    )
    parent_id = parent.info.run_id
    tags = versions | {
        "mlflow.note.content": plain(results.question),
        "raycib.preset": results.preset,
        "raycib.cells": str(len(results.cells)),
        "raycib.failed_cells": str(sum(bool(cell.failed) for cell in results.cells)),
    }
    scores = {f"aligned/{k}": v for k, v in aligned_scores(results).items()}
    scores |= {f"count/{k}": v for k, v in results.counts.plain().items()}
    scores |= _judges(results) | _judge_error(results)
    scores |= {f"seconds/{k}": v for k, v in results.timings_s.items()}
    send(client, parent, {}, _numbers(scores), [], tags, created)

    new = []
    for shown in _cells(results, histories):
        run = known.get(shown.tags[KEY])
        if run is None:
            new.append(shown)
        elif run.data.tags.get(CONTENT) != shown.tags[CONTENT]:
            update(client, run, shown, created)
    add(client, experiment, parent_id, new, created)

    send_files(client, parent, folder)
    client.set_terminated(parent_id, "FINISHED", created)
    base = without_password(uri).rstrip("/")
    return f"{base}/#/experiments/{experiment}/runs/{parent_id}"


def _cells(results: Results, histories: Histories) -> Iterator[Shown]:
    """Swept axes as params, final scores and curves as metrics, the data as a dataset."""
    axes = swept(results.cells)
    most = POINTS // max(1, len(results.cells))
    for cell in results.cells:
        params = {n: getattr(cell, n) for n in ("method", "strength", "seed", "task", "model")}
        params |= {"label": cell.label} if cell.label else {}
        params["lam"] = float(cell.parameters.get("lam", cell.strength))
        params |= {name: cell.parameters[name] for name in axes if name in cell.parameters}
        scores, curves = _compared(cell), _curves(histories.get(cell.key, ()), most)
        tags = {
            SWEEP: results.sweep,
            KEY: cell.key,
            "raycib.parameters": json.dumps(cell.parameters, sort_keys=True, default=str),
            # An empty tag, where there is none: a cell that failed once and was mended says so.
            "raycib.failed": one_line(cell.failed or "", 1_000),
        }
        told = [params, scores, curves, tags, cell.task_data.plain()]
        tags[CONTENT] = _digest(told)
        yield Shown(_name(cell), params, scores, curves, tags, cell.task_data, bool(cell.failed))


def _compared(cell: Cell) -> dict[str, float]:
    """The scores that cells are compared by, and the ends of the harmful response rate's interval.
    What is the same for all cells is the sweep's; everything is in its `summary.json`."""
    flat = flat_scores(cell.scores)
    parts = {
        name + end
        for name in flat
        for part, end in RATE_PARTS.items()
        if end and not (name == "hrr" and part in ("low", "high"))
    }
    return _numbers(
        {
            name: value
            for name, value in flat.items()
            if name not in parts and name not in OF_ROWS and not name.startswith("at_limit_")
            and not name.endswith("_before")
        }
    )  # fmt: skip


def _curves(history: Sequence[Mapping[str, Any]], most: int) -> list[tuple[str, float, int]]:
    """Points of a cell's curves, about `most` in all, evenly spaced; of each its last."""
    terms = len({name for entry in history[:1] for name in entry} - {"step"})
    each = min(MAX_POINTS, max(2, most // max(1, terms)))
    every = -(-len(history) // each) or 1
    return [
        (mlflow_name(f"train/{name}"), float(value), int(entry["step"]))
        for place, entry in enumerate(history, 1)
        if place % every == 0 or place == len(history)
        for name, value in entry.items()
        if name != "step" and isinstance(value, int | float)
    ]


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


def _name(cell: Cell) -> str:
    return one_line(f"{cell.label or cell.method} {cell.strength:g} {cell.task} seed {cell.seed}")


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        mlflow_name(name): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _milliseconds(created: str) -> int:
    return int(datetime.fromisoformat(created).timestamp() * 1000)


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
