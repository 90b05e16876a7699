"""Files of a report have the mode that their owner's umask gives, as all other files have."""

import os
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
