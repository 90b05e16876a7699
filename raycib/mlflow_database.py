"""Many new runs of MLflow at once, into the tables of a database: its client makes each of them in
some ten transactions, which a sweep of thousands has no time for.

What stands there afterwards is what the client would have written, row by row.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from raycib.mlflow_runs import (
    CONTEXT,
    KEY,
    PARAM_LIMIT,
    PARENT,
    SWEEP,
    TAG_LIMIT,
    Shown,
    dataset_of,
    mlflow_name,
    update,
)
from raycib.report.text import one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

AT_ONCE = 500
"""Runs of a transaction."""
Rows = dict[Any, list[dict[str, Any]]]
"""By table, in the order in which they refer to one another."""


def add(
    client: "MlflowClient", experiment: str, parent: str, cells: Sequence[Shown], created: int
) -> None:
    """Runs inside the run `parent`: all at once into a database, one by one at a server."""
    store = client._tracking_client.store
    if hasattr(store, "ManagedSessionMaker"):
        _insert(store, experiment, parent, cells, created)
        return
    for cell in cells:
        one(client, experiment, parent, cell, created)


def one(client: "MlflowClient", experiment: str, parent: str, cell: Shown, created: int) -> None:
    """One run, by MLflow's client."""
    tags = {name: cell.tags[name] for name in (SWEEP, KEY)} | {PARENT: parent}
    run = client.create_run(experiment, start_time=created, run_name=cell.name, tags=tags)
    update(client, run, cell, created)


def _insert(
    store: "SqlAlchemyStore", experiment: str, parent: str, cells: Sequence[Shown], created: int
) -> None:
    """Runs of cells, inside the run `parent`, which began and ended when the sweep was made."""
    from sqlalchemy import insert as into

    location = store.get_experiment(experiment).artifact_location
    for start in range(0, len(cells), AT_ONCE):
        with store.ManagedSessionMaker(read_only=False) as session:
            some = cells[start : start + AT_ONCE]
            datasets = _datasets(session, int(experiment), some)
            place = {"experiment_id": int(experiment), "start_time": created, "end_time": created}
            tables: Rows = {}
            # In the order of their ids, which most indexes begin with.
            for run_id, cell in zip(sorted(uuid4().hex for _ in some), some, strict=True):
                run = {"artifact_uri": f"{location}/{run_id}/artifacts", **place}
                data = datasets[dataset_of(cell.data).name, dataset_of(cell.data).digest]
                for table, row in _rows(store, run_id, cell, run, parent, data):
                    tables.setdefault(table, []).append(row)
            for table, rows in tables.items():
                session.execute(into(table), rows)


def _rows(
    store: "SqlAlchemyStore",
    run_id: str,
    cell: Shown,
    run: Mapping[str, Any],
    parent: str,
    dataset: str,
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """All rows of one run, each with its table."""
    from mlflow.store.tracking.dbmodels import models as tables

    yield tables.SqlRun, {
        **run, "run_uuid": run_id, "name": cell.name, "status": cell.status, "user_id": "unknown",
        "source_type": "UNKNOWN", "source_name": "", "entry_point_name": "", "source_version": "",
        "lifecycle_stage": "active",
    }  # fmt: skip
    tags = {**cell.tags, PARENT: parent, "mlflow.runName": cell.name}
    for name, value in tags.items():
        yield tables.SqlTag, {"run_uuid": run_id, "key": name, "value": value[:TAG_LIMIT]}
    params = {mlflow_name(name): value for name, value in cell.params.items() if value is not None}
    for name, value in params.items():
        said = one_line(value, PARAM_LIMIT)
        yield tables.SqlParam, {"run_uuid": run_id, "key": name, "value": said}
    last: dict[str, dict[str, Any]] = {}
    points = [*((mlflow_name(name), value, 0) for name, value in cell.scores.items()), *cell.curves]
    for name, value, step in points:
        is_nan, number = store.sanitize_metric_value(value)
        row = {
            "run_uuid": run_id, "key": name, "value": number, "step": step,
            "timestamp": run["start_time"], "is_nan": is_nan,
        }  # fmt: skip
        last[name] = row
        yield tables.SqlMetric, row
    for row in last.values():
        yield tables.SqlLatestMetric, row
    named = uuid4().hex
    yield tables.SqlInput, {
        "input_uuid": named, "source_type": "DATASET", "source_id": dataset,
        "destination_type": "RUN", "destination_id": run_id, "step": 0,
    }  # fmt: skip
    tag, value = CONTEXT
    yield tables.SqlInputTag, {"input_uuid": named, "name": tag, "value": value}


def _datasets(session: Any, experiment: int, cells: Sequence[Shown]) -> dict[tuple[str, str], str]:
    """The ids of what cells are trained on, by name and digest; those that are new are made."""
    from mlflow.store.tracking.dbmodels.models import SqlDataset

    known = session.query(SqlDataset).filter(SqlDataset.experiment_id == experiment)
    found = {(one.name, one.digest): one.dataset_uuid for one in known}
    for one in (dataset_of(cell.data) for cell in cells):
        if (one.name, one.digest) not in found:
            found[one.name, one.digest] = uuid4().hex
            session.add(
                SqlDataset(
                    dataset_uuid=found[one.name, one.digest], experiment_id=experiment,
                    name=one.name, digest=one.digest, dataset_source_type=one.source_type,
                    dataset_source=one.source, dataset_profile=one.profile,
                )
            )  # fmt: skip
    session.flush()
    return found
