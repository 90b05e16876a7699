"""The temp folder of a Ray of one's own: nobody's else, and gone when its process is."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raycib.runtime.scratch import Scratch

KILLED = """
import os, signal, sys
from pathlib import Path
from raycib.runtime.scratch import Scratch
(Scratch(Path(sys.argv[1])).folder / "left").touch()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_when_the_next_begins(tmp_path: Path) -> None:
    (tmp_path / "session_of_ray").mkdir()
    held = Scratch(tmp_path)
    (held.folder / "mine").touch()
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)])
    assert done.returncode == -signal.SIGKILL
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
