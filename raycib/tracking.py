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
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raycib.mlflow_runs import (
    KEY,
    SWEEP,
    TAG_LIMIT,
    experiment_of,
    mlflow_name,
    runs_of,
    send,
    send_dataset,
    send_files,
)
from raycib.mlflow_session import sqlite_file, sqlite_uri, tracking_room, without_password
from raycib.report.scores import RATE_PARTS, aligned_scores, flat_scores, swept
from raycib.report.text import one_line, plain
from raycib.results import Cell, Histories, Results

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CONTENT = "raycib.content"
MAX_POINTS = 250
"""Points of a curve that MLflow gets, evenly spaced; the store has every step."""
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
    from mlflow.entities import RunTag
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

    axes, judge = swept(results.cells), results.judge.plain()
    for cell in results.cells:
        history = histories.get(cell.key, ())
        content = _digest([cell.plain(), history, axes, versions, judge])
        run = known.get(cell.key)
        if run is not None and run.data.tags.get(CONTENT) == content:
            continue
        run = run or client.create_run(
            experiment,
            start_time=created,
            run_name=_name(cell),
            tags={SWEEP: results.sweep, KEY: cell.key, "mlflow.parentRunId": parent_id},
        )
        _log_cell(client, run, cell, history, axes, versions, created)
        # Written last: a cell that was cut short has no such tag and is written again.
        client.log_batch(run.info.run_id, tags=[RunTag(CONTENT, content)])
        state = "FAILED" if cell.failed else "FINISHED"
        client.set_terminated(run.info.run_id, state, run.info.start_time)

    send_files(client, parent, folder)
    client.set_terminated(parent_id, "FINISHED", created)
    base = without_password(uri).rstrip("/")
    return f"{base}/#/experiments/{experiment}/runs/{parent_id}"


def _log_cell(
    client: "MlflowClient",
    run: "Run",
    cell: Cell,
    history: Sequence[Mapping[str, Any]],
    axes: Sequence[str],
    versions: Mapping[str, str],
    created: int,
) -> None:
    """Swept axes as params, final scores and curves as metrics, the data as a dataset."""
    params = {n: getattr(cell, n) for n in ("method", "strength", "seed", "task", "model")}
    params |= {"label": cell.label} if cell.label else {}
    params["lam"] = float(cell.parameters.get("lam", cell.strength))
    params |= {name: cell.parameters[name] for name in axes if name in cell.parameters}
    tags = dict(versions)
    tags["raycib.parameters"] = json.dumps(cell.parameters, sort_keys=True, default=str)
    # An empty tag, where there is none: a cell that failed once and was mended says so.
    tags["raycib.failed"] = one_line(cell.failed or "", 1_000)
    tags["raycib.data_digest"] = cell.task_data.digest
    every = -(-len(history) // MAX_POINTS) or 1
    curves = [
        (f"train/{name}", float(value), int(entry["step"]))
        for place, entry in enumerate(history, 1)
        if place % every == 0 or place == len(history)
        for name, value in entry.items()
        if name != "step" and isinstance(value, int | float)
    ]
    send(client, run, params, _numbers(flat_scores(cell.scores)), curves, tags, created)
    if not (run.inputs and run.inputs.dataset_inputs):
        send_dataset(client, run.info.run_id, cell.task_data)


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
