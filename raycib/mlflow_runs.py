"""The runs of an MLflow experiment: found again by their tags, and sent only what they lack."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raycib.mlflow_session import moved_here, sqlite_file
from raycib.report.text import one_line
from raycib.results import TaskData

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, Metric, Param, Run, RunTag

EXPERIMENT = "raycib"
SWEEP, KEY, CONTENT = "raycib.sweep", "raycib.key", "raycib.content"
METRICS_A_BATCH, OTHERS_A_BATCH = 900, 100
"""MLflow takes at most 1,000 metrics, 100 params and 100 tags in a request."""
PARENT = "mlflow.parentRunId"
CONTEXT = ("mlflow.data.context", "training")
"""A tag of what a run is trained on."""
PARAM_LIMIT, TAG_LIMIT, DIGEST_LIMIT = 6_000, 5_000, 36

log = logging.getLogger(__name__)


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


def runs_of(client: "MlflowClient", experiment: str, sweep: str) -> "dict[str, Run]":
    """The sweep's runs by stage key; the run of the sweep itself under ""."""
    found: dict[str, Run] = {}
    quoted = sweep.replace("'", "\\'")
    token = None
    while True:
        page = client.search_runs(
            [experiment], f"tags.`{SWEEP}` = '{quoted}'", max_results=1_000, page_token=token
        )
        for run in page:
            found.setdefault(run.data.tags.get(KEY, ""), run)
        token = page.token
        if not token:
            return found


@dataclass(frozen=True)
class Shown:
    """What MLflow holds of a cell."""

    name: str
    params: Mapping[str, Any]
    scores: Mapping[str, float]
    curves: Sequence[tuple[str, float, int]]
    tags: Mapping[str, str]
    data: TaskData
    failed: bool

    @property
    def status(self) -> str:
        """As MLflow has it."""
        return "FAILED" if self.failed else "FINISHED"


def update(client: "MlflowClient", run: "Run", cell: Shown, created: int) -> None:
    """Sends what the run of a cell lacks. What tells that it is whole comes last: one that was cut
    short is sent again."""
    from mlflow.entities import RunTag

    tags = {name: value for name, value in cell.tags.items() if name != CONTENT}
    send(client, run, cell.params, cell.scores, cell.curves, tags, created)
    if not (run.inputs and run.inputs.dataset_inputs):
        send_dataset(client, run.info.run_id, cell.data)
    client.log_batch(run.info.run_id, tags=[RunTag(CONTENT, cell.tags[CONTENT])])
    client.set_terminated(run.info.run_id, cell.status, run.info.start_time)


def send(
    client: "MlflowClient",
    run: "Run",
    params: Mapping[str, Any],
    scores: Mapping[str, float],
    curves: Sequence[tuple[str, float, int]],
    tags: Mapping[str, str],
    created: int,
) -> None:
    """Sends what the run does not hold yet, in as few requests as MLflow allows.

    Params cannot change in MLflow and are skipped where present. Points of curves carry the run's
    own start as time, so that the same point sent twice is one point; a final score that changed
    gets a later time than any before it, since MLflow shows the latest.
    """
    from mlflow.entities import Metric, Param, RunTag

    start = run.info.start_time
    changed = {name: v for name, v in scores.items() if run.data.metrics.get(name) != v}
    later = max(created, int(datetime.now().timestamp() * 1000)) if run.data.metrics else start
    metrics = [Metric(mlflow_name(name), value, later, 0) for name, value in changed.items()]
    metrics += [Metric(mlflow_name(name), value, start, step) for name, value, step in curves]
    new_params = [
        Param(mlflow_name(name), one_line(value, PARAM_LIMIT))
        for name, value in params.items()
        if name not in run.data.params and value is not None
    ]
    new_tags = [
        RunTag(name, value[:TAG_LIMIT])
        for name, value in tags.items()
        if run.data.tags.get(name) != value[:TAG_LIMIT]
    ]
    for some_metrics, some_params, some_tags in _batches(metrics, new_params, new_tags):
        client.log_batch(run.info.run_id, some_metrics, some_params, some_tags)


def _batches(
    metrics: "Sequence[Metric]", params: "Sequence[Param]", tags: "Sequence[RunTag]"
) -> "Iterator[tuple[Sequence[Metric], Sequence[Param], Sequence[RunTag]]]":
    """Requests of at most 900 metrics; params and tags, 50 of each, go with the first ones."""
    most, half = METRICS_A_BATCH, OTHERS_A_BATCH // 2
    for n in range(max(-(-len(metrics) // most), -(-max(len(params), len(tags)) // half))):
        some, others = slice(n * most, (n + 1) * most), slice(n * half, (n + 1) * half)
        yield metrics[some], params[others], tags[others]


def send_dataset(client: "MlflowClient", run_id: str, data: TaskData) -> None:
    from mlflow.entities import DatasetInput, InputTag

    client.log_inputs(run_id, [DatasetInput(dataset_of(data), [InputTag(*CONTEXT)])])


def dataset_of(data: TaskData) -> "Dataset":
    """Rows as MLflow has them."""
    from mlflow.entities import Dataset

    return Dataset(
        name=data.name,
        digest=data.digest[:DIGEST_LIMIT],
        source_type="raycib",
        source=json.dumps({"sha256": data.digest}),
        profile=json.dumps({"num_rows": data.rows}),
    )


def send_files(client: "MlflowClient", parent: "Run", folder: Path) -> None:
    """Uploads the exhibits that differ from what the run holds, by their digests in a tag."""
    kinds = {".json", ".html", ".png", ".svg", ".csv", ".md", ".tex"}
    files = [
        file
        for file in sorted(folder.iterdir())
        if file.suffix in kinds and file.name != "progress.json"
    ]
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files}
    held = json.loads(parent.data.tags.get("raycib.exhibits") or "{}")
    for file in files:
        if held.get(file.name) != digests[file.name]:
            client.log_artifact(parent.info.run_id, str(file))
    if held != digests:
        client.set_tag(parent.info.run_id, "raycib.exhibits", json.dumps(digests))


def mlflow_name(name: str) -> str:
    """``name`` in the characters that MLflow allows for metrics, params and tags."""
    return re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)[:250]
