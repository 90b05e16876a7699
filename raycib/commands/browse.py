"""`raycib ui`: MLflow on the sweeps of a results folder, with links to their runs."""

import os
import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, urlencode

from raycib.console import clickable
from raycib.errors import UserError
from raycib.tracking.sqlite_file import sqlite_uri

QUIET = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "PYTHONWARNINGS": "ignore",
}


CELLS = urlencode(
    {
        "searchFilter": "params.method LIKE '%'",  # the sweep's own run has none
        "orderByKey": "metrics.`strength`",
        "orderByAsc": "true",
    },
    quote_via=quote,
)
"""Of MLflow's list of runs."""


def links(file: Path, address: str) -> list[str]:
    """Where MLflow at `address` shows the cells of each experiment in a SQLite `file`, by strength:
    its first page shows none of them. Raises `UserError` where there is nothing to show."""
    if not file.exists():
        raise UserError(f"no {file}: run 'make sweep' first, or name the results folder with --out")
    query = (
        "SELECT experiment_id, name FROM experiments WHERE lifecycle_stage = 'active' AND "
        "experiment_id IN (SELECT experiment_id FROM runs) ORDER BY name"
    )
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute(query).fetchall()
    except sqlite3.Error as problem:
        raise UserError(
            f"{file} cannot be read ({problem}); `raycib track` makes it anew once it is moved away"
        ) from problem
    if not found:
        raise UserError(f"{file} holds no run yet; `raycib track` shows finished sweeps there")
    return [f"{name}  {address}/#/experiments/{number}/runs?{CELLS}" for number, name in found]


def serve(out: Path, port: int) -> NoReturn:
    """Become MLflow's server on this machine alone, until Ctrl-C. Raises `UserError`."""
    file = out / "mlflow.db"
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:  # MLflow would try for ever, without a word
        raise UserError(f"--port {port}: {error.strerror}; choose another") from error
    for line in links(file, f"http://127.0.0.1:{port}"):
        print(clickable(line, line.split()[-1]))
    print("Ctrl-C ends MLflow", flush=True)
    program = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", sqlite_uri(file)]
    place = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execve(sys.executable, [*program, *place], dict(os.environ) | QUIET)
