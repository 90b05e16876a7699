"""MLflow wherever it is: odd folders, moved ones, locked ones, and addresses that are none."""

import fcntl
import logging
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from summaries import histories, sweep, typed

from raycib.tracking import default_uri, track
from raycib.tracking import sqlite_file as files
from raycib.tracking.session import without_password
from raycib.tracking.sqlite_file import sqlite_file, sqlite_uri

pytestmark = pytest.mark.usefixtures("no_mlflow_settings")


def show(out: Path, uri: str | None = None) -> str | None:
    """A small sweep with one exhibit, as if in a process of its own."""
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()  # by run, wherever that is stored
    summary = sweep(seeds=1)
    folder = out / summary["sweep"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(f"<p>{out.name}</p>")
    return track(typed(summary), histories(summary), folder, uri)


def runs(out: Path, experiment: str = "raycib"):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=sqlite_uri(out / "mlflow.db"))
    found = client.get_experiment_by_name(experiment)
    return client, client.search_runs([found.experiment_id])


def artifacts(out: Path) -> list[str]:
    """Files of the sweep's run, as MLflow finds them."""
    client, found = runs(out)
    (top,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    return [file.path for file in client.list_artifacts(top.info.run_id)]


ODD = ("a b", "c#d", "e%20f", "g?h=1&i", "ü", "%3F%", "plus+", "100%")


@pytest.mark.parametrize("name", ODD)
def test_the_address_of_a_file_leads_back_to_it(name: str, tmp_path: Path) -> None:
    file = tmp_path / name / "mlflow.db"
    assert sqlite_file(sqlite_uri(file)) == file
    assert sqlite_file(default_uri(file.parent)) == file


def test_a_folder_with_every_odd_character_holds_its_own_database_and_artifacts(
    tmp_path: Path,
) -> None:
    out = tmp_path / "a b#c%20d?e=f&gü" / "runs"
    assert show(out)
    assert (out / "mlflow.db").is_file()
    assert artifacts(out) == ["report.html"]
    assert len(list((out / "mlartifacts").rglob("report.html"))) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [out.parent.name], "nothing elsewhere"


def test_a_file_that_was_deleted_is_made_again_by_the_same_process(tmp_path: Path, caplog) -> None:
    """MLflow keeps connections, which would go on with what has no name any more."""
    assert show(tmp_path)
    (tmp_path / "mlflow.db").unlink()
    assert show(tmp_path), caplog.text
    assert len(runs(tmp_path)[1]) == 7  # the sweep, the model before it, five cells
    assert artifacts(tmp_path) == ["report.html"]


def test_a_moved_or_copied_store_uses_its_new_place(tmp_path: Path) -> None:
    old, copy, new = tmp_path / "old", tmp_path / "copy", tmp_path / "new"
    assert show(old)
    shutil.copytree(old, copy)
    (copy / "lambda_grid" / "report.html").write_text("changed")
    assert show(copy)
    assert len(runs(copy)[1]) == 7
    (kept,) = (old / "mlartifacts").rglob("report.html")
    assert kept.read_text() == "<p>old</p>", "a copy leaves the original alone"
    (held,) = (copy / "mlartifacts").rglob("report.html")
    assert held.read_text() == "<p>copy</p>"
    old.rename(new)
    assert show(new)
    assert artifacts(new) == ["report.html"]
    assert not old.exists()


def test_an_experiment_of_somebody_else_keeps_its_place(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    place = (tmp_path / "theirs").as_uri()
    MlflowClient(tracking_uri=sqlite_uri(tmp_path / "mlflow.db")).create_experiment(
        "raycib", artifact_location=place
    )
    assert show(tmp_path)
    client, _ = runs(tmp_path)
    assert client.get_experiment_by_name("raycib").artifact_location == place


def test_a_deleted_experiment_is_restored_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert show(tmp_path)
    client, before = runs(tmp_path)
    client.delete_experiment(before[0].info.experiment_id)
    with caplog.at_level(logging.WARNING):
        assert show(tmp_path)
    assert "raycib had been deleted and is restored" in caplog.text
    assert {run.info.run_id for run in runs(tmp_path)[1]} == {run.info.run_id for run in before}


def test_a_run_deleted_in_the_ui_is_made_anew(tmp_path: Path) -> None:
    assert show(tmp_path)
    client, before = runs(tmp_path)
    for run in before[:3]:
        client.delete_run(run.info.run_id)
    assert show(tmp_path)
    assert len(runs(tmp_path)[1]) == 7


def test_an_odd_name_of_an_experiment_stays_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs"
    for count, name in enumerate(("../../away", "a/b", "ä ö", "  ", "'", "x" * 400), 1):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
        assert show(out)
        assert len(runs(out, name.strip() or "raycib")[1]) == 7
        assert len(list((out / "mlartifacts").rglob("report.html"))) == count


def test_a_lock_that_another_process_keeps_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_PATIENCE_S", 0.5)
    with open(tmp_path / ".mlflow.db.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        began = time.monotonic()
        with caplog.at_level(logging.WARNING):
            assert show(tmp_path) is None
        assert time.monotonic() - began < 10
    assert f"another process holds {tmp_path}/.mlflow.db.lock" in caplog.text
    assert show(tmp_path), "and once it is free the same call shows the sweep"


KILLED = """
import os, signal, sys
from pathlib import Path
from alembic import command
from raycib.tracking.session import tracking_room
from raycib.tracking.sqlite_file import sqlite_uri
from raycib.tracking.tracker import Tracker
upgrade, uri = command.upgrade, sqlite_uri(Path(sys.argv[1]))
def some(config, revision):
    upgrade(config, "+20")
    os.kill(os.getpid(), signal.SIGKILL)
command.upgrade = some
with tracking_room(uri):
    Tracker(uri, "a sweep")
"""


def test_a_process_killed_as_it_makes_the_file_leaves_none_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 20 of MLflow's changes of its tables: it would neither go on nor begin anew."""
    monkeypatch.setenv("RAYCIB_CACHE", str(tmp_path / "cache"))
    program = [sys.executable, "-c", KILLED, str(tmp_path / "mlflow.db")]
    killed = subprocess.run(program, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed
    assert not (tmp_path / "mlflow.db").exists()
    assert show(tmp_path)
    assert len(runs(tmp_path)[1]) == 7
    assert [*tmp_path.glob(".mlflow.db*")] == [tmp_path / ".mlflow.db.lock"]


def test_tables_are_made_once_and_every_file_has_its_own_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import command

    made, upgrade = [], command.upgrade
    monkeypatch.setattr(command, "upgrade", lambda *a: (made.append(1), upgrade(*a)))
    monkeypatch.setenv("RAYCIB_CACHE", str(tmp_path / "cache"))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert show(tmp_path / name)
        client, found = runs(tmp_path / name)
        assert len(found) == 7 and len(made) == 1
        places = {one.artifact_location for one in client.search_experiments()}
        assert {place.split(str(tmp_path))[1].split("/")[1] for place in places} == {name}
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAYCIB_CACHE", str(tmp_path / "file"))
    assert show(tmp_path / "no cache") and len(made) == 2


NOWHERE = (
    "validate", "/some/folder", "runs/x", "file:./mlruns", "http://", "http:/x", "http://[::1",
    "https://u:secret@", "sqlite://", "sqlite:///:memory:", "sqlite:////proc/nothing/x.db", "ftp://x",
    "postgresql://u:sec/r@et@127.0.0.1:1/db", "http://127.0.0.1:1/?token=secret", "databricks", ":",
    "s3://bucket/x", "sqlite:///" + "d" * 300,
)  # fmt: skip


def test_an_address_that_leads_nowhere_costs_seconds_and_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    for uri in NOWHERE:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "raycib"):
            assert show(tmp_path / "runs", uri) is None, uri
        (said,) = [r.getMessage() for r in caplog.records if r.name.startswith("raycib")]
        assert "is not in MLflow at" in said and "\n" not in said
        assert "secret" not in said and "sec/r" not in said
    assert time.monotonic() - began < 40
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs"], "no folder of MLflow's"


def test_a_file_that_is_no_database_is_given_up_in_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The advice said to try again, which met the same file. Half a database is none either."""
    file = tmp_path / "mlflow.db"
    assert show(tmp_path)
    half = file.read_bytes()[: file.stat().st_size // 2]
    for damaged in (b"no database" * 1_000, half):
        file.write_bytes(damaged)
        began = time.monotonic()
        caplog.clear()
        with caplog.at_level(logging.WARNING, "raycib"):
            assert show(tmp_path) is None
        assert "move that damaged file away: `raycib track` shows it" in caplog.text
        assert "SQL:" not in caplog.text, "nor how that was found"
        assert time.monotonic() - began < 10, "MLflow's own ten tries take two minutes"
    file.rename(tmp_path / "away.db")
    assert show(tmp_path)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://u:p@h:5000/x", "http://***@h:5000/x"),
        ("postgresql+psycopg://u:p@ss/w#rd@h/db", "postgresql+psycopg://***@h/db"),
        ("https://token@h", "https://***@h"),
        ("http://h/?api_key=k1&x=2", "http://h/?api_key=***&x=2"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
    ],
)
def test_names_and_passwords_are_left_out_of_addresses(address: str, shown: str) -> None:
    assert without_password(address) == shown
