"""`make` with a mistyped word: one line and a code that is not 0, never a silent success."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with this Makefile, all set up, one sweep and one test."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps/one.py").write_text("import sys\nprint('did', sys.argv[1:])\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_one.py").write_text("def test_it(): pass\ndef test_fails(): assert 0\n")
    (tmp_path / ".venv/.ready").touch()
    return tmp_path


def make(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *words], cwd=project, capture_output=True, text=True)


def test_a_sweep_that_is_not_there_is_refused_with_those_that_are(project: Path) -> None:
    assert make(project, "sweep", "SWEEP=one", "ARGS=--seeds 1").stdout == "did ['--seeds', '1']\n"
    refused = make(project, "sweep", "SWEEP=nonsense")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: no sweep nonsense; SWEEP= is one of one\n")


def test_that_comes_before_some_minutes_of_installing(project: Path) -> None:
    (project / ".venv/.ready").unlink()
    told = make(project, "--dry-run", "sweep").stdout  # what it would do, in order
    assert 0 < told.index("error: no sweep") < told.index("pip install")


@pytest.mark.parametrize(("arguments", "code"), [("-k it", 0), ("-k nothing", 2), ("", 2)])
def test_tests_that_are_not_there_did_not_pass(project: Path, arguments: str, code: int) -> None:
    ended = make(project, "test", f"ARGS={arguments}")
    assert ended.returncode == code
    assert ("error: ARGS picks no test" in ended.stderr) is (arguments == "-k nothing")
