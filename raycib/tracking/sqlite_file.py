"""A SQLite file as the place of MLflow's runs: its address, and one process at a time."""

import fcntl
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

LOCK_PATIENCE_S = 30.0
"""How long another process may keep a SQLite file; a large sweep takes it for some seconds."""


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
