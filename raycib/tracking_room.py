"""What surrounds a call to MLflow: patience, quiet, and one process at a time on a SQLite file."""

import fcntl
import logging
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

IMPATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # read on import, over what `quiet` sets
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Defaults while ``track`` runs: with MLflow's own, a server that is down costs minutes."""


@contextmanager
def tracking_room(uri: str) -> Iterator[None]:
    """All of the below, for as long as one sweep is being shown at ``uri``."""
    with settings(IMPATIENCE), quiet(), alone(uri), hasty(uri):
        yield


def without_password(uri: str) -> str:
    return re.sub(r"(\w+://[^/:@\s]*):[^@/\s]*@", r"\1:***@", uri)


def sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextmanager
def settings(defaults: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that the user has not set, for a while."""
    new = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


@contextmanager
def quiet() -> Iterator[None]:
    """Without MLflow's chatter on creating tables and urllib3's on each retry."""
    levels = {"mlflow": logging.WARNING, "alembic": logging.WARNING, "urllib3": logging.ERROR}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """One process at a time on a SQLite file: two that create its tables at once both fail.

    The lock is the system's and ends with its process, however that ends.
    """
    file = sqlite_file(uri)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file.parent / f".{file.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def hasty(uri: str) -> Iterator[None]:
    """A SQLite file that does not exist yet is filled without waiting for the disk each time.

    MLflow commits some 250 times to make its tables and to hold a small sweep, which takes a
    minute on a busy disk. A power cut in these seconds can spoil the new file, of which nothing
    is lost that the store does not have. A file with something in it is never treated so.
    """
    file = sqlite_file(uri)
    if file is None or file.exists():
        yield
        return
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    opened: list[sqlite3.Connection] = []

    def no_sync(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")
            opened.append(connection)

    event.listen(Engine, "connect", no_sync)
    try:
        yield
    finally:
        event.remove(Engine, "connect", no_sync)
        for connection in opened:  # MLflow keeps them for as long as the process lives
            with suppress(sqlite3.Error):
                connection.execute("PRAGMA synchronous = FULL")
