"""What MLflow's runs are found again by, and what it allows."""

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from raycib.results import TaskData

if TYPE_CHECKING:
    from mlflow.entities import Dataset

SWEEP, KEY, NAME = "raycib.sweep", "raycib.key", "raycib.name"
"""Tags that say which run it is."""
CONTENT = "raycib.content"
"""A tag that is written last: a hash of all that the run holds."""
PARENT = "mlflow.parentRunId"
CONTEXT = ("mlflow.data.context", "training")
"""A tag of what a run is trained on."""
PARAM_LIMIT, TAG_LIMIT, DIGEST_LIMIT = 6_000, 5_000, 36


@dataclass(frozen=True)
class Known:
    """A run that MLflow has."""

    run_id: str
    start: int
    """In milliseconds since 1970."""
    content: str
    """Of what it holds (`Shown.content`); "" where it was never over."""
    status: str
    """As MLflow has it."""
    place: str
    """Of its artifacts."""


@cache
def mlflow_name(name: str) -> str:
    """``name`` in the characters that MLflow allows for metrics, params and tags."""
    return re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)[:250]


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
