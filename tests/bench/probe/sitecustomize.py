"""Runs at the start of every Python process of a program that `processes.watched` watches: says
what the CPU time of its Python threads goes to, by what they are in ten times a second.

A stack belongs to the first phase that one of its functions opens, from the outermost on; within
an import it is the import. What a file is written to is kept up to date, for Ray kills its workers.
"""

import atexit
import json
import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType

EVERY_S, WRITTEN_S = 0.1, 1.0
IMPORTS, OTHER, PROBE = "imports", "other", "probe"
FOLDER = os.environ.get("RAYCIB_BENCH_PROBE")
PHASES: dict[tuple[str, str], str] = (
    {
        (file, function): phase
        for file, function, phase in json.loads(os.environ["RAYCIB_BENCH_PHASES"])
    }
    if FOLDER
    else {}
)


def phase_of(frame: FrameType | None) -> str:
    """Of a thread with this innermost frame."""
    found = OTHER
    while frame is not None:
        code = frame.f_code
        if "importlib._bootstrap" in code.co_filename:
            return IMPORTS
        found = PHASES.get(("/".join(code.co_filename.split("/")[-2:]), code.co_name), found)
        frame = frame.f_back
    return found


def used(thread: int) -> float:
    """CPU seconds of a thread of this process; 0 once it is gone."""
    try:
        return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


class Probe:
    """Of one process."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._before: dict[int, float] = {}
        self._written = 0.0
        threading.Thread(target=self._watch, daemon=True, name="bench probe").start()
        atexit.register(self._write)

    def _watch(self) -> None:
        own = threading.get_native_id()
        while True:
            frames = sys._current_frames()
            for thread in threading.enumerate():
                number = thread.native_id or own
                now = used(number)
                if (more := now - self._before.get(number, 0.0)) > 0:
                    frame = frames.get(thread.ident or 0)
                    phase = PROBE if number == own else phase_of(frame)
                    self._spent[phase] = self._spent.get(phase, 0.0) + more
                    self._before[number] = now
            del frames
            if time.monotonic() - self._written > WRITTEN_S:
                self._write()
            time.sleep(EVERY_S)

    def _write(self) -> None:
        self._written = time.monotonic()
        file = Path(f"{FOLDER}/{os.getpid()}.json")
        new = file.with_suffix(f".{threading.get_native_id()}")
        new.write_text(json.dumps(self._spent))
        new.replace(file)


if FOLDER:
    os.register_at_fork(after_in_child=Probe)
    Probe()
