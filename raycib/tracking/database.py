"""Runs of MLflow in the tables of a database, many at once: its client makes each of them in some
ten transactions, which a sweep of thousands has no time for.

What stands there afterwards is what the client would have written, row by row.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from raycib.report.text import one_line
from raycib.tracking.names import (
    CONTENT,
    CONTEXT,
    KEY,
    NAME,
    PARAM_LIMIT,
    PARENT,
    SWEEP,
    Known,
    dataset_of,
    mlflow_name,
)
from raycib.tracking.shown import CURVE, HEADLINE, OURS, Point, Shown

if TYPE_CHECKING:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

AT_ONCE = 500
"""Runs of a transaction."""
LOOSE = {"synchronize_session": False}
"""Nothing of what is changed was read into the session."""
Rows = dict[Any, list[dict[str, Any]]]
"""By table, in the order in which they refer to one another."""


class Database:
    """Runs of one experiment, behind a store of MLflow's that is a database."""

    def __init__(self, store: "SqlAlchemyStore", experiment: str) -> None:
        self._store, self._experiment = store, int(experiment)
        self._location = store.get_experiment(experiment).artifact_location

    def known(self, sweep: str) -> dict[tuple[str, str], Known]:
        """The sweep's runs, by key and name."""
        from mlflow.store.tracking.dbmodels import models as tables

        run, tag = tables.SqlRun, tables.SqlTag
        with self._store.ManagedSessionMaker() as session:
            mine = session.query(tag.run_uuid).filter(tag.key == SWEEP, tag.value == sweep)
            kept = (run.experiment_id == self._experiment, run.lifecycle_stage == "active")
            rows = session.query(
                run.run_uuid, run.start_time, run.name, run.artifact_uri, run.status
            ).filter(*kept, run.run_uuid.in_(mine)).all()  # fmt: skip
            told = session.query(tag.run_uuid, tag.key, tag.value).filter(
                tag.key.in_((KEY, NAME, CONTENT)), tag.run_uuid.in_(mine)
            )
            tags: dict[str, dict[str, str]] = {}
            for run_id, name, value in told:
                tags.setdefault(run_id, {})[name] = value
        found: dict[tuple[str, str], Known] = {}
        for run_id, start, name, place, status in sorted(rows):
            of = tags.get(run_id, {})
            one = Known(run_id, start, of.get(CONTENT, ""), status, place)
            found.setdefault((of.get(KEY, ""), of.get(NAME, name or "")), one)
        return found

    def write(self, cells: Sequence[tuple[Shown, Known | None]], parent: str | None) -> list[Known]:
        """Runs that are new, or in the place of what they held, inside the run `parent`; as they
        are now."""
        # Which began first: an index that grows at its end is dense.
        written, last = [], cells[::-1]
        for start in range(0, len(last), AT_ONCE):
            written += self._write(last[start : start + AT_ONCE], parent)
        return written[::-1]

    def _write(
        self, cells: Sequence[tuple[Shown, Known | None]], parent: str | None
    ) -> list[Known]:
        from mlflow.store.tracking.dbmodels import models as tables
        from sqlalchemy import delete, or_, update

        written = []
        # In the order of their ids, which most indexes begin with.
        new = iter(sorted(uuid4().hex for _ in cells))
        for shown, before in cells:
            run_id = before.run_id if before else next(new)
            place = before.place if before else f"{self._location}/{run_id}/artifacts"
            start = before.start if before else shown.began
            written.append(Known(run_id, start, shown.content, shown.status, place))
            write_files(place, shown.files)
        with self._store.ManagedSessionMaker(read_only=False) as session:
            datasets = _datasets(session, self._experiment, [shown for shown, _ in cells])
            fresh: Rows = {tables.SqlRun: []}
            for (shown, before), one in zip(cells, written, strict=True):
                for table, row in self._rows(shown, one, parent, datasets, before is None):
                    fresh.setdefault(table, []).append(row)
            old = [one.run_id for (_, before), one in zip(cells, written, strict=True) if before]
            for table in (tables.SqlMetric, tables.SqlLatestMetric, tables.SqlParam, tables.SqlTag):
                names = {row["key"] for row in fresh.get(table, ())} | {*HEADLINE}
                ours = or_(table.key.in_(names), *(table.key.like(f"{p}%") for p in (*OURS, CURVE)))
                if old:  # what a person added stays
                    gone = delete(table).where(table.run_uuid.in_(old), ours)
                    session.execute(gone, execution_options=LOOSE)
            for (shown, before), one in zip(cells, written, strict=True):
                if before:
                    run = update(tables.SqlRun).where(tables.SqlRun.run_uuid == one.run_id)
                    session.execute(
                        run.values(status=shown.status, end_time=max(one.start, shown.ended or 0)),
                        execution_options=LOOSE,
                    )
            _insert(session, fresh)
        return written

    def add_points(self, points: Sequence[tuple[Known, Sequence[Point]]]) -> None:
        """New points of curves, in one transaction; none of them may be there."""
        from mlflow.store.tracking.dbmodels import models as tables
        from sqlalchemy import delete

        rows, last = [], {}
        for run, some in points:
            for row in self._metrics(run, some):
                rows.append(row)
                last[run.run_id, row["key"]] = row
        if not rows:
            return
        latest = tables.SqlLatestMetric
        with self._store.ManagedSessionMaker(read_only=False) as session:
            ids, names = ({place[n] for place in last} for n in (0, 1))
            gone = delete(latest).where(latest.run_uuid.in_(ids), latest.key.in_(names))
            session.execute(gone, execution_options=LOOSE)
            _insert(session, {tables.SqlMetric: rows, latest: [*last.values()]})

    def last_steps(self, runs: Sequence[Known]) -> dict[str, int]:
        """The last step of each run's curves that is there, by its id."""
        from mlflow.store.tracking.dbmodels.models import SqlMetric
        from sqlalchemy import func

        with self._store.ManagedSessionMaker() as session:
            found = session.query(SqlMetric.run_uuid, func.max(SqlMetric.step)).filter(
                SqlMetric.run_uuid.in_([one.run_id for one in runs])
            )
            return {one[0]: one[1] for one in found.group_by(SqlMetric.run_uuid)}

    def mark(self, runs: Sequence[Known], status: str, ended: int | None) -> None:
        """Runs that go on, or were interrupted."""
        from mlflow.store.tracking.dbmodels.models import SqlRun
        from sqlalchemy import update

        mine = update(SqlRun).where(SqlRun.run_uuid.in_([one.run_id for one in runs]))
        with self._store.ManagedSessionMaker(read_only=False) as session:
            values = mine.values(status=status, end_time=ended)
            session.execute(values, execution_options=LOOSE)

    def _rows(
        self,
        shown: Shown,
        run: Known,
        parent: str | None,
        datasets: Mapping[tuple[str, str], str],
        new: bool,
    ) -> Iterator[tuple[Any, dict[str, Any]]]:
        """All rows of one run, each with its table."""
        from mlflow.store.tracking.dbmodels import models as tables

        if new:
            yield tables.SqlRun, {
                "run_uuid": run.run_id, "name": shown.name, "status": shown.status,
                "start_time": run.start, "end_time": shown.ended, "artifact_uri": run.place,
                "experiment_id": self._experiment, "lifecycle_stage": "active",
                "user_id": "unknown", "source_type": "UNKNOWN", "source_name": "",
                "entry_point_name": "", "source_version": "",
            }  # fmt: skip
        tags = shown.tags | {"mlflow.runName": shown.name} | ({PARENT: parent} if parent else {})
        for name, value in tags.items():
            yield tables.SqlTag, {"run_uuid": run.run_id, "key": name, "value": value}
        given = {mlflow_name(name): v for name, v in shown.params.items() if v is not None}
        for name, value in given.items():
            said = one_line(value, PARAM_LIMIT)
            yield tables.SqlParam, {"run_uuid": run.run_id, "key": name, "value": said}
        last: dict[str, dict[str, Any]] = {}
        scores = [(mlflow_name(name), value, 0) for name, value in shown.scores.items()]
        for row in self._metrics(run, [*scores, *shown.curves]):
            last[row["key"]] = row
            yield tables.SqlMetric, row
        for row in last.values():
            yield tables.SqlLatestMetric, row
        if new and shown.data is not None:
            named, data = uuid4().hex, dataset_of(shown.data)
            yield tables.SqlInput, {
                "input_uuid": named, "source_type": "DATASET",
                "source_id": datasets[data.name, data.digest],
                "destination_type": "RUN", "destination_id": run.run_id, "step": 0,
            }  # fmt: skip
            tag, value = CONTEXT
            yield tables.SqlInputTag, {"input_uuid": named, "name": tag, "value": value}

    def _metrics(self, run: Known, points: Sequence[Point]) -> Iterator[dict[str, Any]]:
        """Points carry the run's own start as time, so that the same one is the same row."""
        for name, value, step in points:
            is_nan, number = self._store.sanitize_metric_value(value)
            yield {
                "run_uuid": run.run_id, "key": name, "value": number, "step": step,
                "timestamp": run.start, "is_nan": is_nan,
            }  # fmt: skip


def _insert(session: Any, rows: Rows) -> None:
    """Without the objects that the session would make and keep of rows."""
    from sqlalchemy import insert

    for table, some in rows.items():
        if some:
            session.connection().execute(insert(table.__table__), some)


def _datasets(session: Any, experiment: int, cells: Sequence[Shown]) -> dict[tuple[str, str], str]:
    """The ids of what cells are trained on, by name and digest; those that are new are made."""
    from mlflow.store.tracking.dbmodels.models import SqlDataset

    wanted = [dataset_of(cell.data) for cell in cells if cell.data is not None]
    if not wanted:
        return {}
    known = session.query(SqlDataset).filter(SqlDataset.experiment_id == experiment)
    found = {(one.name, one.digest): one.dataset_uuid for one in known}
    for one in wanted:
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


def write_files(place: str, files: Mapping[str, str]) -> None:
    """A run's artifacts into their place: a folder, or what MLflow has a client for."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    if not files:
        return
    with ExitStack() as here:
        local = is_local_uri(place)
        folder = Path(
            local_file_uri_to_path(place) if local else here.enter_context(TemporaryDirectory())
        )
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        if not local:
            get_artifact_repository(place).log_artifacts(str(folder))
