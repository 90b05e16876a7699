"""Ray where it cannot run, is not there, or is too small: a line within a minute, and no process
left behind."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from programs import ROOT
from ray_head import Cluster
from running import program, title

from raycib.config.presets import PRESETS, Execution
from raycib.errors import UserError
from raycib.runtime import capacity as room
from raycib.runtime import cluster

WORLD = PRESETS["world"].execution


@pytest.mark.real
def test_work_without_room_is_named_with_what_it_wants_and_what_is_free(cluster: Cluster) -> None:
    code = (
        "import time, ray; from ray.util.placement_group import placement_group\n"
        "from raycib.runtime.live_progress import without_room\n"
        f"ray.init({cluster.gcs!r}, log_to_driver=False)\n"
        "print([without_room()]); placement_group([{'CPU': 2}, {'CPU': 1}])\n"
        "while not without_room(): time.sleep(0.2)\n"
        "print(without_room())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=cluster.environ, cwd=ROOT,
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "['']", "waiting for room: 3 CPUs wanted and 2 of 2 free",
    ], done.stderr  # fmt: skip


def test_a_failed_start_is_said_and_what_it_started_is_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster, "_folder", lambda: tmp_path)
    started: list[subprocess.Popen[str]] = []
    theirs: list[int] = []

    def start(**where: object) -> None:
        one = subprocess.Popen(["sh", "-c", "sleep 300 & echo $!; wait"], text=True, stdout=-1)
        assert one.stdout
        theirs.append(int(one.stdout.readline()))
        started.append(one)
        raise Exception("The current node timed out during startup. This could happen because")

    monkeypatch.setattr(cluster, "_init", start)
    monkeypatch.setattr(ray, "shutdown", lambda: (started[-1].kill(), started[-1].wait()))
    with pytest.raises(UserError, match="timed out during startup"):
        cluster._start_here(dashboard=True)
    assert len(started) == len(theirs) == cluster.STARTS
    assert not any(tmp_path.iterdir())
    assert not any(map(title, [*theirs, *(one.pid for one in started)]))
    first, *said = capsys.readouterr().out.splitlines()
    assert first == "starting Ray on this machine"
    assert [line[-12:] for line in said] == ["3 tries left", "2 tries left", "1 tries left"]


def test_a_ray_that_was_imported_first_is_not_started(tmp_path: Path) -> None:
    """It has read then whether to ask for a token. "local" too is a Ray of one's own."""
    connected = """
import os
del os.environ["RAY_AUTH_MODE"]
os.environ["RAY_ADDRESS"] = "local"
import ray
from raycib.config.presets import PRESETS
from raycib.runtime.cluster import connect
connect(PRESETS["world"].execution)
"""
    done = program(tmp_path, "-c", connected)
    assert "Ray was imported before raycib.runtime" in done.stderr.splitlines()[-1]


def test_a_temp_folder_that_takes_no_files_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(cluster, "_folder", lambda: tmp_path / "file" / "ray")
    with pytest.raises(
        UserError, match="file/ray: Not a directory; name another folder with RAY_TMPDIR"
    ):
        cluster._start_here(dashboard=False)


def test_nobody_else_may_read_rays_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray 2.60 writes it with the user's umask, which mostly lets all read."""
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)
    monkeypatch.setattr(cluster, "_init", lambda **_: None)
    monkeypatch.setattr(cluster, "_folder", lambda: tmp_path)
    cluster._start_here(dashboard=False).remove()
    assert token.stat().st_mode & 0o777 == 0o600


def test_where_no_token_can_be_kept_it_is_in_the_environment_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A user of a container may have no home; one with a token has Ray read it."""
    seen: list[str | None] = []
    monkeypatch.setattr(cluster, "_init", lambda **_: seen.append(os.getenv("RAY_AUTH_TOKEN")))
    monkeypatch.setattr(cluster, "_folder", lambda: tmp_path)
    for home in (tmp_path, tmp_path / "none"):
        monkeypatch.setenv("HOME", str(home))
        for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            monkeypatch.setenv(name, "")  # so that it is restored
            monkeypatch.delenv(name)
        cluster._start_here(dashboard=False).remove()
    there, none = seen
    assert there is None and none is not None and len(none) == 64
    assert not (tmp_path / "none").exists()


def test_a_folder_too_long_for_sockets_is_replaced_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert cluster._folder() == Path("/tmp/ray")
    long = tmp_path / ("job_12345678_" * 6)
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setenv(name, str(long))
        assert cluster._folder() == Path("/tmp/ray"), "where Ray's logs are anyway: no new folder"
        assert f"Ray's files are in /tmp/ray: {long} is too long" in capsys.readouterr().out


def test_what_has_no_room_is_named_with_how_much_is_wanted_and_there() -> None:
    large = PRESETS["llama31-8b"].execution
    assert room.lacking(WORLD, {"CPU": 1.0}, served=True) == []
    assert room.lacking(large, {"CPU": 8.0}, served=False) == [
        "an adapter group wants 1 GPUs and there are 0",
        "the engine that answers wants 1 GPUs and there are 0",
    ]
    many = WORLD.model_copy(update={"workers": 6})
    assert room.lacking(many, {"CPU": 2.0}, True) == [
        "an adapter group wants 2.41 CPUs and there are 2"
    ]


def test_replicas_want_as_much_each_and_so_do_those_that_a_model_is_split_over() -> None:
    """Two engines over two GPUs each are four GPUs; one judge has half of one."""
    change = {"engine_replicas": 2, "engine_gpus": 2, "judge_gpus": 0.5}
    execution = PRESETS["llama31-8b"].execution.model_copy(update=change)
    assert room.lacking(execution, {"CPU": 8.0, "GPU": 4.0}, served=True) == []
    assert room.lacking(execution, {"CPU": 1.5, "GPU": 3.0}, served=True) == [
        "the engine that answers, 2 times, wants 2 CPUs and there are 1.5",
        "the engine that answers, 2 times, wants 4 GPUs and there are 3",
    ]
    three = WORLD.model_copy(update={"judge_replicas": 9})
    assert room.lacking(three, {"CPU": 1.0}, served=False) == [], "nobody is served"
    assert len(room.lacking(three, {"CPU": 1.0}, served=True)) == 1


SHARES = {"gpus_per_worker": 0.3, "engine_gpus": 0.55, "judge_gpus": 0.15}


@pytest.mark.parametrize(
    ("gpus", "change", "groups"),
    [
        (8, {}, 8),
        (8, {"judge_starts_early": True}, 6),
        (8, {"judge_starts_early": True, "engine_replicas": 3, "engine_gpus": 2}, 1),
        (1, SHARES, 3),
        (1, {"gpus_per_worker": 0.2}, 5),  # though 1 // 0.2 is 4
        (4, {"gpus_per_worker": 0.1}, 40),
        (1, SHARES | {"judge_starts_early": True}, 1),
    ],
)
def test_groups_leave_room_for_services_that_start_early(
    gpus: float, change: dict[str, Any], groups: int
) -> None:
    """They would otherwise start when the last group is done."""
    execution = PRESETS["llama31-8b"].execution.model_copy(update=change)
    assert room.groups_that_fit(execution, 64.0, gpus) == groups


def test_a_plan_makes_the_groups_that_ray_would_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    execution = PRESETS["llama31-8b"].execution
    monkeypatch.setattr(room, "gpus_here", lambda: ["NVIDIA H100 80GB HBM3, 81559 MiB"] * 8)
    assert room.groups_here(execution) == room.groups_that_fit(execution, 64.0, 8.0) == 8
    assert room.groups_here(execution.model_copy(update={"workers": 2})) == 4
    monkeypatch.setattr(room, "gpus_here", list)
    assert room.groups_here(execution) == 1


@pytest.mark.parametrize(
    ("asked", "gpus", "useful", "found"),
    [
        (None, 1, 16, 8),
        (None, 2, 16, 4),
        (None, 3, 16, 2),  # two nodes of four GPUs: a model lies on one node
        (None, 1, 5, 5),
        (None, 1, 0, 1),
        (None, 0.5, 16, 1),
        (None, 0, 16, 1),
        (3, 1, 1, 3),
        (3, 0, 1, 3),
        (None, 8, 16, 1),  # none fits: one waits for a node that does
    ],
)
def test_as_many_engines_as_are_useful_and_there_are_gpus_for(
    asked: int | None, gpus: float, useful: int, found: int
) -> None:
    nodes = [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 16.0, "GPU": 4.0}, {"CPU": 4.0}]
    assert room.replicas(asked, gpus, nodes, useful) == found


@pytest.mark.parametrize(("workers", "fits"), [(1, True), (3, True), (4, False)])
def test_services_start_early_only_beside_a_group(workers: int, fits: bool) -> None:
    """4 workers of 0.4, a trial of 0.01, the engine's 0.3 and the judge's 0.2 are 2.11 CPUs."""
    execution: Execution = WORLD.model_copy(update={"workers": workers})
    assert room.fit_at_once(execution, {"CPU": 2.0}) is fits
