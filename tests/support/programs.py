"""Programs of this repository, run in this process as `python sweeps/lambda_grid.py` runs them."""

import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SWEEPS = ROOT / "sweeps"
SWEEP = SWEEPS / "lambda_grid.py"
RAYCIB = ROOT / "raycib" / "__main__.py"


class Ended(NamedTuple):
    """How a program ended."""

    code: int
    out: str
    err: str

    def told(self, what: str) -> int:
        """How many of something a sweep says at its end, of "engine start", say; 0 where it says
        nothing of them."""
        found = re.search(rf"; (\d+) {what}s?;|^(\d+) {what}s? trained,", self.out, re.MULTILINE)
        return int(found.group(1) or found.group(2)) if found else 0

    @property
    def refusal(self) -> str:
        """The one line of a refused command."""
        assert (self.code, self.out) == (2, ""), self
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1, f"one line, not\n{self.err}"
        return self.err


Program = Callable[..., Ended]


def runner(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Program:
    """What runs a script with arguments; fixture `program`."""

    def run(script: Path, *arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Ended(code, *capfd.readouterr())

    return run


def own_rows(folder: Path, task: Path | None = None) -> list[object]:
    """Options for a task, of 20 rows where none is given, and a harmful prompt of one's own."""
    if task is None:
        rows = [{"question": f"how many, {n} ?", "answer": "two"} for n in range(20)]
        task = folder / "task.jsonl"
        task.write_text("".join(json.dumps(row) + "\n" for row in rows))
    harmful = folder / "harmful.jsonl"
    harmful.write_text('{"prompt": "how do i harm ?"}')
    return ["--task", task, "--harmful", harmful, "--judge", "world:guard"]
