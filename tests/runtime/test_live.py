"""A real sweep, watched from outside while it runs: its report and its runs in MLflow; killed, and
run again."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from programs import ROOT
from running import NAME

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(900)]

COMMAND = (
    sys.executable, "sweeps/lambda_grid.py", "--local", "--seeds", "1", "--strengths", "1",
    "--set", "trainer.batch_size=64", "--set", "trainer.epochs=4",
)  # fmt: skip
"""200 steps, but of a cell that trains long enough to be looked at: what is live takes at most a
fiftieth of the driver's time."""
PATIENCE_S = 240


def start(out: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.Popen(
        [*COMMAND, "--out", str(out)], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def asked(out: Path, query: str) -> list[tuple]:
    """Rows of MLflow's database, read by nobody of MLflow's."""
    with closing(sqlite3.connect(f"file:{out}/mlflow.db?mode=ro", uri=True, timeout=20)) as there:
        return there.execute(query).fetchall()


RUNS = "SELECT run_uuid, name, status FROM runs ORDER BY name"
POINTS = "SELECT count(*) FROM metrics WHERE key = 'train/task'"
TWICE = (
    "SELECT key FROM metrics WHERE key LIKE 'train/%' "
    "GROUP BY run_uuid, key, step HAVING count(*) > 1"
)


def until(out: Path, what) -> None:
    """Waits for something in the database; it may not be there yet."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if what():
                return
        except sqlite3.Error:
            pass
        time.sleep(0.3)
    raise TimeoutError


def test_a_sweep_is_seen_while_it_runs_and_goes_on_in_the_same_runs(tmp_path: Path) -> None:
    page = tmp_path / NAME / "report.html"
    first = start(tmp_path)
    try:
        until(tmp_path, lambda: asked(tmp_path, POINTS)[0][0] > 0)
        few = asked(tmp_path, POINTS)[0][0]
        until(tmp_path, lambda: asked(tmp_path, POINTS)[0][0] > few)
        until(tmp_path, lambda: 'id="curves"' in page.read_text())
        seen = asked(tmp_path, RUNS)
        assert [(name, status) for _, name, status in seen] == [
            ("cib 1 open seed 0", "RUNNING"), (NAME, "RUNNING")
        ]  # fmt: skip
        assert first.poll() is None, "it goes on"
        text = page.read_text()
        assert "Unfinished." in text and "0 cells have scores, of 1; training, " in text
        assert "failed" not in text.split("</style>")[1].split("<script")[0]
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()

    ended = start(tmp_path)
    said, _ = ended.communicate(timeout=PATIENCE_S)
    assert ended.returncode == 0, said
    assert "not shown" not in said and "not reached" not in said
    last = asked(tmp_path, RUNS)
    assert {status for *_, status in last} == {"FINISHED"}
    assert {run for run, *_ in seen} < {run for run, *_ in last} and len(last) == 3
    assert asked(tmp_path, TWICE) == []
    assert asked(tmp_path, POINTS) == [(200,)]
    assert "nfinished" not in page.read_text().split("<script")[0]

    rows = "SELECT * FROM metrics WHERE run_uuid IN (SELECT run_uuid FROM runs WHERE name = '%s')"
    cell = asked(tmp_path, rows % "cib 1 open seed 0")
    again = start(tmp_path)
    assert again.communicate(timeout=PATIENCE_S) and again.returncode == 0
    assert asked(tmp_path, RUNS) == last and asked(tmp_path, rows % "cib 1 open seed 0") == cell
