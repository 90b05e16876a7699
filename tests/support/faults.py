"""Sweeps that something happens to: a small one, what may happen and when, and how to see that
nothing of it is lost.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from programs import ROOT, SWEEP, Ended
from running import adapters, environment, scores
from store_child import sweep

RARE = (
    "--preset", "world", "--seeds", "1", "--strengths", "0,5", "--group-size", "1",
    "--task", "world:open.train#first-80", "--harmful", "world:harmful.test#first-12",
    "--benign", "world:benign.test#first-8", "--probes", "world:facts.test#first-8",
    "--judge", "world:guard",
    "--set", "trainer.batch_size=8",
)  # fmt: skip
"""One checkpoint, at the end of each group."""
SMALL = (*RARE, "--set", "execution.checkpoint_every=4")
"""Two groups of one stage, 9 steps each with two checkpoints; 36 answers are judged."""
PATIENCE_S = 300


class Sweep:
    """A sweep that runs in a child of `Sweeps`."""

    def __init__(self, parent: "Sweeps", pid: int, logs: tuple[Path, Path]) -> None:
        self.pid = pid
        self._parent, self._logs = parent, logs

    def wait(self, seconds: float = PATIENCE_S) -> Ended:
        """How it ended: minus the signal where it was killed."""
        deadline = time.monotonic() + seconds
        while (code := self._parent.ask(pid=self.pid)) is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, 9)
                raise AssertionError(f"not done after {seconds:.0f} s: {self.said}")
            time.sleep(0.05)
        return Ended(code, *(log.read_text() for log in self._logs))

    @property
    def said(self) -> str:
        """All it printed."""
        return "".join(log.read_text() for log in self._logs)


class Sweeps:
    """A process that has imported everything and starts sweeps."""

    def __init__(self, child: subprocess.Popen[str], folder: Path) -> None:
        """`folder` is for what sweeps print."""
        self._child, self._folder = child, folder

    def ask(self, **request: Any) -> Any:
        """One line to it, and one back."""
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        assert answer, f"the parent of sweeps died of {request}"
        return json.loads(answer)

    def start(self, out: Path, moments: Sequence[str] = (), do: str = "", **environ: str) -> Sweep:
        """Begin the small sweep into `out`; at certain moments of it, something is done."""
        logs = tuple(self._folder / f"{time.monotonic_ns()}.{name}" for name in ("out", "err"))
        for log in logs:
            log.touch()
        pid = self.ask(
            command=[str(SWEEP), "--local", "--out", str(out), *SMALL],
            environ=environ | {"OUT": str(out)},
            logs=[str(log) for log in logs],
            moments=moments,
            do=do,
        )
        return Sweep(self, pid, logs)  # type: ignore[arg-type]

    def run(self, out: Path, *moments: str, do: str = "", **environ: str) -> Ended:
        """The same, to its end."""
        return self.start(out, moments, do, **environ).wait()


@contextmanager
def sweeps(folder: Path) -> Iterator[Sweeps]:
    """A parent of sweeps. Where there is a C compiler their clock can jump: by the seconds that
    stand in the file which the variable CLOCK names."""
    environ = environment(folder)
    program = Path(__file__).with_name("sweep_child.py")
    if compiler := shutil.which("cc"):
        shim = folder / "clock.so"
        source = program.with_name("clock_shim.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
        environ |= {"LD_PRELOAD": str(shim)}
    with subprocess.Popen(
        [sys.executable, program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
        cwd=ROOT,
    ) as child:
        yield Sweeps(child, folder)
        assert child.stdin
        child.stdin.close()


class Facts(NamedTuple):
    """What of a finished sweep no fault may change."""

    adapters: dict[str, bytes]
    answers: dict[str, bytes]
    verdicts: list[str]
    """Lines, sorted: one that was heard twice stands twice."""
    scores: dict[str, Any]
    left: list[str]
    """What is under way: checkpoints, claims, half-written results."""


def facts(out: Path) -> Facts:
    """Of the store at `out`, once it was swept as the next writer does."""
    sweep(out)
    answers = (out / "generations").glob("*/answers.json")
    verdicts = (out / "verdicts").glob("*/verdicts.jsonl")
    under_way = (out / kind for kind in ("checkpoints", ".claims", ".writing", "failures"))
    return Facts(
        adapters(out),
        {file.parent.name: file.read_bytes() for file in answers},
        sorted(line for file in verdicts for line in file.read_text().splitlines()),
        scores(out),
        [str(entry) for folder in under_way if folder.is_dir() for entry in folder.iterdir()],
    )
