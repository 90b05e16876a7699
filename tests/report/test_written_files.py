"""Files of a report have the mode that their owner's umask gives, as all other files have, and a
writer that is killed leaves nothing for good."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raycib.report.writing import write_text


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_modes_follow_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "report.html", "first")
        file = write_text(tmp_path / "report.html", "second")
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == mode
    assert file.read_text() == "second"
    assert os.listdir(tmp_path) == ["report.html"]


KILLED = """
import os, signal, sys
from pathlib import Path
from raycib.report import writing
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
writing.write_text(Path(sys.argv[1]), "half")
"""


def test_what_a_killed_writer_left_is_gone_with_the_next(tmp_path: Path) -> None:
    """Killed with all of it written beside its place: the old text stands until the next one."""
    file = write_text(tmp_path / "report.html", "first")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert file.read_text() == "first" and len(os.listdir(tmp_path)) > 1
    write_text(file, "second")
    assert os.listdir(tmp_path) == ["report.html"] and file.read_text() == "second"
