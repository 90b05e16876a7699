"""One sweep shown in MLflow, while it runs and when it is over.

Its parent is the sweep; inside it each cell is a run with its settings as params, its scores and
loss curves as metrics and its data as a dataset. Runs are found again by their tags, so that a
second call, or another process, goes on with what the first one made.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from raycib.report.text import one_line
from raycib.results import Histories, Results, Samples
from raycib.tracking.new_file import make_file
from raycib.tracking.session import default_uri, in_a_line, tracking_room, without_password
from raycib.tracking.shown import POINTS, Point, Shown, Times, points_of, runs_of, spacing
from raycib.tracking.sqlite_file import moved_here, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from raycib.tracking.database import Database
    from raycib.tracking.names import Known
    from raycib.tracking.server import Server

EXPERIMENT = "raycib"
DATABASE_TRIES = 3
SHOWN_FILES = {".json", ".html", ".png", ".svg", ".csv", ".md", ".tex"}

log = logging.getLogger(__name__)


def track(
    results: Results,
    histories: Histories,
    exhibits_folder: Path,
    uri: str | None = None,
    samples: Samples | None = None,
    times: Times | None = None,
) -> str | None:
    """Shows a sweep that is over in MLflow and returns the address of its run; None where that
    failed.

    ``exhibits_folder`` is the sweep's folder, ``DIR/<sweep>``; its tables, figures and report
    become artifacts of the sweep's run. Without ``uri`` the store is MLFLOW_TRACKING_URI or
    ``DIR/mlflow.db``, with artifacts in ``DIR/mlartifacts``. The experiment is
    MLFLOW_EXPERIMENT_NAME or "raycib". ``samples`` become artifacts of the cells; ``times`` are
    when their stages were trained.

    Never raises: what goes wrong is one warning in the log, and the results stay in the store.
    """
    place = uri or default_uri(exhibits_folder.parent)
    try:
        with tracking_room(place):
            tracker = Tracker(place, results.sweep)
            tracker.show(results, histories, samples or {}, times or {})
            return tracker.finish(exhibits_folder)
    except Exception as error:  # a view must never cost a result, whatever MLflow throws
        log.warning("%s", missed(results.sweep, place, error))
        return None


def missed(sweep: str, place: str, error: Exception) -> str:
    """That a sweep could not be shown, in a line, and what helps."""
    # So a file that is no database any more is told, whoever wraps it; others are below this class.
    damaged = "(sqlite3.DatabaseError)" in str(error)
    first = "move that damaged file away: " if damaged else ""
    return (
        f"sweep {one_line(sweep)} is not in MLflow at {without_password(place)}; results are "
        f"stored, {first}`raycib track` shows it later ({in_a_line(error)})"
    )


class Tracker:
    """A sweep's runs at one address, within `tracking_room`."""

    def __init__(self, uri: str, sweep: str) -> None:
        self.uri, self._sweep = uri, sweep
        _refuse_nowhere(uri)
        from mlflow import MlflowClient
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = DATABASE_TRIES  # its ten tries to open a database take two minutes
        make_file(uri)
        self._client = MlflowClient(tracking_uri=uri)
        if sqlite_file(uri):  # MLflow keeps connections, perhaps with a file that was here before
            self._client._tracking_client.store.engine.dispose()  # type: ignore[attr-defined]
        self._experiment = experiment_of(self._client, uri)
        self._runs = _runs(self._client, self._experiment)
        self._known: dict[tuple[str, str], Known] = {}
        self._going: list[Known] = []
        """Runs that go on."""
        self._curves: dict[str, list[Known]] = {}
        """Those of them that are trained, by stage."""
        self._last: dict[str, int] = {}
        """The last step of their curves that is there, by run that this process has written."""
        self._cells = 1

    def show(
        self,
        results: Results,
        histories: Histories,
        samples: Samples,
        times: Times,
        unfinished: Mapping[str, int | None] | None = None,
    ) -> None:
        """Bring all runs to what `results` say: what MLflow holds already is not written again.
        `unfinished` has the stages of a sweep that goes on (`runs_of`)."""
        parent, *others = runs_of(results, histories, samples, times, unfinished)
        self._cells = len(results.cells)
        if not self._known.keys() >= {one.run for one in (parent, *others)}:
            # Another process may have begun them since: two sweeps into one folder, at once.
            self._known = self._runs.known(self._sweep) | self._known
        self._write([parent], None)
        self._write(others, self._known[parent.run].run_id)
        self._going = [self._known[one.run] for one in (parent, *others) if one.ended is None]
        self._curves = {}
        for shown in others:
            if shown.ended is None:
                self._curves.setdefault(shown.key, []).append(self._known[shown.run])

    def _write(self, all_shown: Sequence[Shown], parent: str | None) -> None:
        """Runs that are new or hold something else; those that go on are only said to."""
        pairs = [(one, self._known.get(one.run)) for one in all_shown]
        changed, again = [], []
        for shown, before in pairs:
            held = before and (before.content, before.status)
            if before is None or (shown.ended and held != (shown.content, shown.status)):
                changed.append((shown, before))
            elif not shown.ended and before.run_id not in self._last:  # another process began it
                again.append((shown, before))
        if again:
            runs = [before for _, before in again]
            self._runs.mark(runs, "RUNNING", None)
            self._last |= {run.run_id: 0 for run in runs} | self._runs.last_steps(runs)
            self._known |= {one.run: replace(run, status=one.status) for one, run in again}
        for (shown, _), run in zip(changed, self._runs.write(changed, parent), strict=True):
            self._known[shown.run] = run
            self._last.setdefault(run.run_id, 0)

    def add_points(self, curves: Histories, steps: Mapping[str, int]) -> None:
        """What of the curves of stages that go on is new, of as many `steps` each."""
        runs = [run for key in curves for run in self._curves.get(key, ())]
        # Another process may have written some since: two sweeps into one folder, at once.
        self._last |= self._runs.last_steps(runs)
        new: list[tuple[Known, list[Point]]] = []
        for key, history in curves.items():
            for run in self._curves.get(key, ()):
                every = spacing(history, steps[key], POINTS // max(1, self._cells))
                some = [
                    point
                    for entry in history
                    if entry["step"] % every == 0 and entry["step"] > self._last[run.run_id]
                    for point in points_of(entry)
                ]
                if some:
                    new.append((run, some))
        if new:
            self._runs.add_points(new)
        self._last |= {run.run_id: max(step for _, _, step in some) for run, some in new}

    def stop(self) -> None:
        """The sweep was interrupted: what went on does not."""
        if self._going:
            self._runs.mark(self._going, "KILLED", int(1000 * time.time()))

    def finish(self, folder: Path) -> str:
        """Upload the exhibits; the address of the sweep's run."""
        parent = self._client.get_run(self._known["", self._sweep].run_id)
        send_files(self._client, parent, folder)
        base = without_password(self.uri).rstrip("/")
        return f"{base}/#/experiments/{self._experiment}/runs/{parent.info.run_id}"


def _runs(client: "MlflowClient", experiment: str) -> "Database | Server":
    """All at once in a database, one by one at a server."""
    store = client._tracking_client.store
    if hasattr(store, "ManagedSessionMaker"):
        from raycib.tracking.database import Database

        return Database(store, experiment)  # type: ignore[arg-type]
    from raycib.tracking.server import Server

    return Server(client, experiment)


def _refuse_nowhere(uri: str) -> None:
    """MLflow takes a word without a scheme for a folder, which it makes and then refuses to use;
    a database in memory would be gone at the end."""
    if not re.match(r"databricks|[\w+.-]+:", uri):
        raise ValueError("no address: give http://..., or sqlite:///FILE with three slashes")
    if uri.startswith("sqlite") and sqlite_file(uri) is None:
        raise ValueError("no file: give sqlite:///FILE with three slashes")


def experiment_of(client: "MlflowClient", uri: str) -> str:
    """The id of the experiment, which is made, or taken out of the bin, where it has to be."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "").strip() or EXPERIMENT
    file = sqlite_file(uri)
    # Otherwise MLflow would put artifacts below whatever the working directory is.
    place = re.sub(r"[^\w-]", "_", name, flags=re.ASCII)[:100]
    artifacts = (file.absolute().parent / "mlartifacts" / place).as_uri() if file else None
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name, artifact_location=artifacts)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
        log.warning("the MLflow experiment %s had been deleted and is restored", one_line(name))
    if artifacts:
        moved_here(uri, found.experiment_id, artifacts)
    return found.experiment_id


def send_files(client: "MlflowClient", parent: "Run", folder: Path) -> None:
    """Uploads the exhibits that differ from what the run holds, by their digests in a tag, and
    removes those that are no more; one that cannot be removed is said, and tried again."""
    files = [
        file
        for file in sorted(folder.iterdir())
        if file.suffix in SHOWN_FILES and file.name != "progress.json"
    ]
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files}
    held = json.loads(parent.data.tags.get("raycib.exhibits") or "{}")
    for file in files:
        if held.get(file.name) != digests[file.name]:
            client.log_artifact(parent.info.run_id, str(file))
    if (gone := held.keys() - digests.keys()) and parent.info.artifact_uri:
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        place = get_artifact_repository(parent.info.artifact_uri)
        for name in sorted(gone):
            try:
                place.delete_artifacts(name)
            except (MlflowException, NotImplementedError, OSError) as error:
                digests[name] = held[name]
                log.warning("MLflow keeps %s of an earlier run: %s", name, in_a_line(error))
    if held != digests:
        client.set_tag(parent.info.run_id, "raycib.exhibits", json.dumps(digests))
