"""What surrounds a call to MLflow: patience, quiet, and one process at a time on a SQLite file."""

import fcntl
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

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
LOCK_PATIENCE_S = 30.0
"""How long another process may keep a SQLite file; a large sweep takes it for some seconds."""


def default_uri(folder: Path) -> str:
    """The tracking store for results in ``folder``: MLFLOW_TRACKING_URI, or a file in it."""
    chosen = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    return chosen or sqlite_uri(folder.resolve() / "mlflow.db")


@contextmanager
def tracking_room(uri: str) -> Iterator[None]:
    """All of the below, for as long as one sweep is being shown at ``uri``."""
    with settings(IMPATIENCE), quiet(), alone(uri), hasty(uri):
        yield


def without_password(text: str) -> str:
    """``text`` without the names, passwords and tokens of the addresses in it.

    Everything up to the last @ goes: a password may hold any character, and a name may be a token.
    """
    hidden = re.sub(r"(?<!sqlite)://(?!/)\S*@", "://***@", text)
    return re.sub(r"(?i)([?&]\w*(?:pass|pwd|token|secret|key)\w*=)[^&\s]+", r"\1***", hidden)


def sqlite_uri(file: Path) -> str:
    """The address of a SQLite file, whatever its folders are called.

    In an address `?` begins the options and `%` a code, so both are written as codes. MLflow makes
    the parent folder of `sqlite:///...` without decoding it; with the driver named it leaves that.
    """
    from sqlalchemy import URL

    plain = URL.create("sqlite", database=str(file.absolute())).render_as_string()
    return plain.replace("sqlite:", "sqlite+pysqlite:", 1) if "%" in plain else plain


def sqlite_file(uri: str) -> Path | None:
    """The file behind the address of a SQLite store; None for any other store."""
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy import make_url

    name = make_url(uri).database
    return Path(name) if name and name != ":memory:" else None


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


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """One process at a time on a SQLite file: two that create its tables at once both fail.

    The lock is the system's and ends with its process, however that ends. TimeoutError where
    another process keeps it for longer than `LOCK_PATIENCE_S`.
    """
    file = sqlite_file(uri)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    path = file.parent / f".{file.name}.lock"
    with open(path, "w") as lock:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process holds {path}") from None
                time.sleep(0.1)
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


def moved_here(uri: str, experiment: str, artifacts: str) -> None:
    """After its folder was moved or copied, a SQLite file still names the old one as the place of
    an experiment's artifacts, and MLflow would write there; it has no call to change that."""
    file = sqlite_file(uri)
    if file is None:
        return
    with closing(sqlite3.connect(file, timeout=20)) as database, database:
        (old,) = database.execute(
            "SELECT artifact_location FROM experiments WHERE experiment_id = ?", (experiment,)
        ).fetchone()
        # Others' experiments keep their place: only what `track` made ends like this.
        if old == artifacts or old.split("/")[-2:] != artifacts.split("/")[-2:]:
            return
        database.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (artifacts, experiment),
        )
        database.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?)"
            " WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
            (artifacts, len(old) + 1, experiment, len(old) + 1, f"{old}/"),
        )
