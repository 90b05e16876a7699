"""Runs at the start of every Python process of a program that `processes.watched` watches: says
what the CPU time of its Python threads goes to, by what they are in ten times a second.

A stack belongs to the first phase that one of its functions opens, from the outermost on; within
an import it is the import. What a file is written to is kept up to date, for Ray kills its workers.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType

EVERY_S, WRITTEN_S = 0.1, 1.0
IMPORTS, OTHER = "imports", "other"
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


def watch() -> None:
    """Until the process ends."""
    spent: dict[str, float] = {IMPORTS: 0.0, OTHER: 0.0}
    before: dict[int, float] = {}
    own, written = threading.get_native_id(), 0.0
    while True:
        frames = sys._current_frames()
        for thread in threading.enumerate():
            number = thread.native_id
            if number is None or number == own:
                continue
            now = used(number)
            if (more := now - before.get(number, 0.0)) > 0:
                phase = phase_of(frames.get(thread.ident or 0))
                spent[phase] = spent.get(phase, 0.0) + more
                before[number] = now
        del frames
        if time.monotonic() - written > WRITTEN_S:
            written = time.monotonic()
            file = Path(f"{FOLDER}/{os.getpid()}.json")
            new = file.with_suffix(".new")
            new.write_text(json.dumps(spent))
            new.replace(file)
        time.sleep(EVERY_S)


def begin() -> None:
    """In this process."""
    threading.Thread(target=watch, daemon=True, name="bench probe").start()


if FOLDER:
    os.register_at_fork(after_in_child=begin)
    begin()
