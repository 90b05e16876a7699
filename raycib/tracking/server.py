"""Runs of MLflow at a server, one by one: what each lacks, in as few requests as MLflow allows."""

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

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
from raycib.tracking.shown import HEADLINE, OURS, Point, Shown

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run, RunTag

METRICS_A_BATCH, OTHERS_A_BATCH = 900, 100
"""MLflow takes at most 1,000 metrics, 100 params and 100 tags in a request."""


class Server:
    """Runs of one experiment, by MLflow's client."""

    def __init__(self, client: "MlflowClient", experiment: str) -> None:
        self._client, self._experiment = client, experiment

    def known(self, sweep: str) -> dict[tuple[str, str], Known]:
        """The sweep's runs, by key and name."""
        found: dict[tuple[str, str], Known] = {}
        quoted = sweep.replace("'", "\\'")
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment], f"tags.`{SWEEP}` = '{quoted}'", max_results=1_000,
                page_token=token,
            )  # fmt: skip
            for run in page:
                tags = run.data.tags
                name = tags.get(NAME, run.info.run_name or "")
                found.setdefault((tags.get(KEY, ""), name), _known(run))
            token = page.token
            if not token:
                return found

    def write(self, cells: Sequence[tuple[Shown, Known | None]], parent: str | None) -> list[Known]:
        """Runs that are new, or in the place of what they held, inside the run `parent`; as they
        are now."""
        return [self._write(shown, before, parent) for shown, before in cells]

    def _write(self, shown: Shown, before: Known | None, parent: str | None) -> Known:
        """What tells that a run is whole comes last: one that was cut short is sent again."""
        from mlflow.entities import DatasetInput, InputTag, RunTag

        client, tags = self._client, shown.tags
        if before is None:
            first = {name: tags[name] for name in (SWEEP, KEY, NAME)}
            first |= {PARENT: parent} if parent else {}
            run = client.create_run(self._experiment, shown.began, first, shown.name)
        else:
            run = client.get_run(before.run_id)
        run_id = run.info.run_id
        self._send(run, shown)
        if shown.data and not (run.inputs and run.inputs.dataset_inputs):
            data = DatasetInput(dataset_of(shown.data), [InputTag(*CONTEXT)])
            client.log_inputs(run_id, [data])
        if shown.files:
            with TemporaryDirectory() as folder:
                for name, text in shown.files.items():
                    (Path(folder) / name).write_text(text, encoding="utf-8")
                client.log_artifacts(run_id, folder)
        client.log_batch(run_id, tags=[RunTag(CONTENT, tags[CONTENT])])
        if shown.ended is not None:
            ended = max(run.info.start_time, shown.ended)
            client.set_terminated(run_id, shown.status, ended)
        place = run.info.artifact_uri or ""
        return Known(run_id, run.info.start_time, shown.content, shown.status, place)

    def _send(self, run: "Run", shown: Shown) -> None:
        """Sends what the run does not hold yet.

        Params cannot change in MLflow and are skipped where present. Points of curves carry the
        run's own start as time, so that the same point sent twice is one point; a final score that
        changed gets a later time than any before it, since MLflow shows the latest. No metric can
        be taken away: one that is not measured any more becomes nan.
        """
        from mlflow.entities import Metric, Param, RunTag

        start = run.info.start_time
        held = {mlflow_name(name): run.data.metrics.get(mlflow_name(name)) for name in shown.scores}
        changed = {n: v for n, v in shown.scores.items() if held[mlflow_name(n)] != v}
        later = int(datetime.now().timestamp() * 1000)
        metrics = [
            Metric(mlflow_name(name), value, start if held[mlflow_name(name)] is None else later, 0)
            for name, value in changed.items()
        ]
        told = {*map(mlflow_name, shown.scores)}
        metrics += [
            Metric(name, math.nan, later, 0)
            for name, value in run.data.metrics.items()
            if (name in HEADLINE or name.startswith(OURS))
            and name not in told
            and not math.isnan(value)
        ]
        metrics += [Metric(name, value, start, step) for name, value, step in shown.curves]
        new_params = [
            Param(mlflow_name(name), one_line(value, PARAM_LIMIT))
            for name, value in shown.params.items()
            if mlflow_name(name) not in run.data.params and value is not None
        ]
        new_tags = [
            RunTag(name, value)
            for name, value in shown.tags.items()
            if name != CONTENT and run.data.tags.get(name) != value
        ]
        for some_metrics, some_params, some_tags in _batches(metrics, new_params, new_tags):
            self._client.log_batch(run.info.run_id, some_metrics, some_params, some_tags)

    def add_points(self, points: Sequence[tuple[Known, Sequence[Point]]]) -> None:
        """New points of runs' curves."""
        from mlflow.entities import Metric

        for run, some in points:
            metrics = [Metric(name, value, run.start, step) for name, value, step in some]
            for batch, _, _ in _batches(metrics, [], []):
                self._client.log_batch(run.run_id, batch)

    def last_steps(self, runs: Sequence[Known]) -> dict[str, int]:
        """Unknown: a point that is sent twice is one point."""
        return {}

    def mark(self, runs: Sequence[Known], status: str, ended: int | None) -> None:
        """Runs that go on, or were interrupted."""
        for run in runs:
            if ended is None:
                self._client.update_run(run.run_id, status)
            else:
                self._client.set_terminated(run.run_id, status, ended)


def _known(run: "Run") -> Known:
    info, content = run.info, run.data.tags.get(CONTENT, "")
    return Known(info.run_id, info.start_time, content, info.status, info.artifact_uri or "")


def _batches(
    metrics: "Sequence[Metric]", params: "Sequence[Param]", tags: "Sequence[RunTag]"
) -> "Iterator[tuple[Sequence[Metric], Sequence[Param], Sequence[RunTag]]]":
    """Requests of at most 900 metrics; params and tags, 50 of each, go with the first ones."""
    most, half = METRICS_A_BATCH, OTHERS_A_BATCH // 2
    for n in range(max(-(-len(metrics) // most), -(-max(len(params), len(tags)) // half))):
        some, others = slice(n * most, (n + 1) * most), slice(n * half, (n + 1) * half)
        yield metrics[some], params[others], tags[others]
