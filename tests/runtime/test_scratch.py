"""The temp folder of a Ray of one's own: nobody's else, and gone when its process is."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from raycib.runtime.scratch import Scratch

KILLED = """
import os, psutil, signal, subprocess, sys
from pathlib import Path
from raycib.runtime.scratch import Scratch
scratch = Scratch(Path(sys.argv[1]))
(scratch.folder / "left").touch()
with scratch.as_temp_folder({}):
    child = subprocess.Popen(["sleep", "100"], start_new_session=True)
if sys.argv[2] == "all":
    for one in psutil.Process().children():
        one.kill()
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(root: Path, who: str) -> int:
    """After a process with a temp folder was killed: the id of what it had started there."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(root), who], stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == -signal.SIGKILL
    return int(done.stdout)


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_what_a_killed_process_started_ends_and_its_folder_goes(tmp_path: Path) -> None:
    held = Scratch(tmp_path)
    with held.as_temp_folder({}):
        other = subprocess.Popen(["sleep", "100"])
    child = killed(tmp_path, "itself")
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [*tmp_path.iterdir()] == [held.folder] and not runs(child)
    assert other.poll() is None, "that of a living process stays"
    held.remove()
    assert other.wait(1) == -signal.SIGKILL and not held.folder.exists()


def test_who_writes_to_the_logs_of_its_ray_ends_and_an_older_ray_of_that_id_stays(
    tmp_path: Path,
) -> None:
    def writer(session: str) -> subprocess.Popen[bytes]:
        folder = tmp_path / session / "logs"
        folder.mkdir(parents=True)
        with (folder / "agent.log").open("w") as log:
            return subprocess.Popen(["sleep", "100"], stdout=log)

    older = writer(f"session_2026-01-01_00-00-00_000000_{os.getpid()}")
    scratch = Scratch(tmp_path)
    own = writer(f"session_2026-01-02_00-00-00_000000_{os.getpid()}")
    scratch.remove()
    assert own.wait(1) == -signal.SIGKILL and older.poll() is None
    older.kill()
    older.wait()


def test_what_was_left_where_all_were_killed_goes_when_the_next_begins(tmp_path: Path) -> None:
    (tmp_path / "session_of_ray").mkdir()
    held = Scratch(tmp_path)
    (held.folder / "mine").touch()
    killed(tmp_path, "all")
    assert len(list(tmp_path.iterdir())) == 3, "it left its folder"
    other = Scratch(tmp_path)
    assert {*tmp_path.iterdir()} == {tmp_path / "session_of_ray", held.folder, other.folder}
    assert (held.folder / "mine").exists(), "that of a living process stays"
    for one in (held, other, other):
        one.remove()
    assert [one.name for one in tmp_path.iterdir()] == ["session_of_ray"]


def test_what_starts_in_it_has_it_as_its_temp_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMED", "before")
    monkeypatch.delenv("UNNAMED", raising=False)
    before, scratch = dict(os.environ), Scratch(tmp_path)
    ask = "import os, tempfile; print(tempfile.gettempdir(), os.environ['NAMED'])"
    with scratch.as_temp_folder({"NAMED": "theirs", "UNNAMED": "1"}):
        said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout
        compiled = os.environ["TORCHINDUCTOR_CACHE_DIR"]
    assert said.split() == [str(scratch.folder), "theirs"]
    assert Path(compiled).parent == Path(tempfile.gettempdir()), "outlives the sweep"
    assert dict(os.environ) == before


def test_on_a_full_disk_it_is_refused_and_leaves_nothing(small_disk: Path) -> None:
    """Ray would wait there for its own files, and say that they did not come."""
    root = small_disk / "ray"
    Scratch(root).remove()
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(bytes(32 * 2**20))
    with (small_disk / "filler").open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 2**14)  # room for a folder
    with pytest.raises(OSError, match="No space left"):
        Scratch(root)
    assert not list(root.iterdir())
