"""What surrounds a call to MLflow: patience, quiet, and one process at a time on a SQLite file."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raycib.environment import environment
from raycib.report.text import one_line
from raycib.tracking.sqlite_file import alone, sqlite_uri

IMPATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # read on import, over what `quiet` sets
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Defaults while ``track`` runs: with MLflow's own, a server that is down costs minutes."""


def default_uri(folder: Path) -> str:
    """The tracking store for results in ``folder``: MLFLOW_TRACKING_URI, or a file in it."""
    chosen = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    return chosen or sqlite_uri(folder.resolve() / "mlflow.db")


@contextmanager
def tracking_room(uri: str) -> Iterator[None]:
    """All of it, for as long as one sweep is being shown at ``uri``."""
    unset = {name: value for name, value in IMPATIENCE.items() if name not in os.environ}
    with environment(unset), quiet(), alone(uri):
        yield


def without_password(text: str) -> str:
    """``text`` without the names, passwords and tokens of the addresses in it.

    Everything up to the last @ goes: a password may hold any character, and a name may be a token.
    """
    hidden = re.sub(r"(?<!sqlite)://(?!/)\S*@", "://***@", text)
    return re.sub(r"(?i)([?&]\w*(?:pass|pwd|token|secret|key)\w*=)[^&\s]+", r"\1***", hidden)


def in_a_line(error: Exception) -> str:
    """What is wrong, without passwords and without the SQL in which it was found."""
    said = without_password(str(error).partition("[SQL:")[0])
    return f"{type(error).__name__}: {one_line(said, 160)}"


@contextmanager
def quiet() -> Iterator[None]:
    """Without MLflow's chatter on creating tables, its tracebacks where a database is locked, and
    urllib3's lines on each retry."""
    levels = {"mlflow": logging.CRITICAL, "alembic": logging.WARNING, "urllib3": logging.ERROR}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
