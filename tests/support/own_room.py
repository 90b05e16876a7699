"""A sweep in a room of its own, with its own processes, /tmp and /dev/shm: whatever it leaves there
is its own, and is seen."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from programs import ROOT, SWEEP, Ended
from running import Running, title

ENTER = """
set -e
stash=$(mktemp -d /var/tmp/room.XXXX)
mount -t tmpfs none $stash
n=0
for place in "$ROOT" "$BESIDE"; do
  n=$((n+1)); mkdir $stash/$n; mount --bind "$place" $stash/$n
done
mount -t tmpfs none /tmp
mount -t tmpfs none /dev/shm
n=0
for place in "$ROOT" "$BESIDE"; do
  n=$((n+1)); mkdir -p "$place"; mount --bind $stash/$n "$place"
done
mkdir -p "$RAY_TMPDIR"
cd "$ROOT"
eval "$ODD"
set +e
"$@" >"$BESIDE/said.out" 2>"$BESIDE/said.err" &
echo $! >"$BESIDE/pid"
wait $!
echo $? >"$BESIDE/code"
sleep 600
"""
"""What its first process does: it hides /tmp but for two places, and stays until it is killed."""


class Room:
    """A sweep that runs in one, or has ended there."""

    def __init__(self, running: Running, beside: Path) -> None:
        self._running, self._beside = running, beside

    @property
    def said(self) -> str:
        """All that the sweep printed so far."""
        files = (self._beside / f"said.{kind}" for kind in ("out", "err"))
        return "".join(file.read_text() for file in files if file.exists())

    def processes(self) -> dict[int, str]:
        """Titles of all living processes in it but the first, by id; the dead have none."""
        _, *others = self._pids()
        return {pid: called for pid in others if (called := title(pid))}

    def _pids(self) -> list[int]:
        """In the order in which they began: of the same namespace as the one that waits."""
        (first,) = _children(self._running.process.pid)
        there = os.readlink(f"/proc/{first}/ns/pid")
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != first:
                with suppress(OSError):
                    if os.readlink(entry / "ns" / "pid") == there:
                        found.append(int(entry.name))
        return [first, *(pid for pid in sorted(found) if not title(pid).startswith("sleep "))]

    def kill(self, who: str, number: int = signal.SIGKILL) -> None:
        """A signal to the first process with `who` in its title, once there is one."""
        found = self._running.until(
            lambda: [pid for pid, called in self.processes().items() if who in called]
        )
        os.kill(found[0], number)

    def until(self, there: object) -> None:
        """Wait for something to be true while the sweep runs."""
        self._running.until(there)  # type: ignore[arg-type]

    def wait(self, seconds: float = 300) -> Ended:
        """How the sweep ended; the room is still there."""
        code = self._beside / "code"
        self._running.until(lambda: code.exists() and code.read_text(), seconds)
        said = ((self._beside / f"said.{kind}").read_text() for kind in ("out", "err"))
        return Ended(int(code.read_text()), *said)

    def left(self, seconds: float = 0.0) -> list[str]:
        """Titles of processes and paths of files that are left after that long, at most. Ray keeps
        the logs of a session by design."""
        deadline = time.monotonic() + seconds
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.2)
        (first,) = _children(self._running.process.pid)
        root = Path(f"/proc/{first}/root")
        kept = [root / str(place).lstrip("/") for place in (ROOT, self._beside)]
        files = [
            one
            for folder in (root / "tmp", root / "dev" / "shm")
            for one in folder.rglob("*")
            if not any(one.is_relative_to(place) or place.is_relative_to(one) for place in kept)
        ]
        return [*self.processes().values(), *(str(one.relative_to(root)) for one in files)]


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def room(out: Path, *arguments: str, **environ: str) -> Iterator[Room]:
    """Begin a sweep into `out` in a room, where the shell does what the variable ODD says before;
    all of it is gone afterwards. Needs root."""
    beside = out.parent
    enter = [
        "unshare",
        "--uts",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "bash",
        "-c",
        ENTER,
        "room",
    ]
    command = [*enter, sys.executable, str(SWEEP), "--out", str(out), *arguments]
    places = {"ROOT": str(ROOT), "BESIDE": str(beside), "ODD": ""}
    running = Running(command, Path("/tmp/ray-room"), beside / "room", **places | environ)
    try:
        yield Room(running, beside)
    finally:
        running.clean()
