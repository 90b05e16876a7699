"""A new SQLite file with MLflow's tables."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from raycib.cache import cache
from raycib.tracking.sqlite_file import sqlite_file, sqlite_uri


def make_file(uri: str) -> None:
    """A new SQLite file has its name once all of MLflow's tables are there: MLflow can neither use
    nor mend one whose maker was killed."""
    file = sqlite_file(uri)
    if file is None or file.exists():
        return
    part = file.with_name(f".{file.name}.part")
    try:
        shutil.copyfile(_empty_file(), part)
    except OSError:  # no cache can be written to
        _make_tables(part)
    part.replace(file)


def _empty_file() -> Path:
    """A file with MLflow's tables and nothing else, made once: it takes MLflow a CPU second."""
    from mlflow.version import VERSION

    empty = cache("mlflow") / f"{VERSION}.db"
    if not empty.is_file():
        empty.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=empty.parent) as folder:
            made = Path(folder) / empty.name
            _make_tables(made)
            with closing(sqlite3.connect(made)) as database, database:
                # MLflow's own first experiment has a folder, which whoever opens a copy chooses.
                database.execute("DELETE FROM experiments")
            made.replace(empty)
    return empty


def _make_tables(file: Path) -> None:
    """In some 250 commits, which need not wait for the disk: the file has no name yet."""
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def hasten(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    file.unlink(missing_ok=True)
    event.listen(Engine, "connect", hasten)
    try:
        SqlAlchemyStore(sqlite_uri(file), DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()
    finally:
        event.remove(Engine, "connect", hasten)
    with file.open("rb") as made:
        os.fsync(made.fileno())
