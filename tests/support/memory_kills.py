"""The system's own way to end a process for want of memory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PLACES = {"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"}
"""Control groups of version 1 and of version 2, and the file with the limit."""


@contextmanager
def no_more_memory() -> Iterator[Path]:
    """A file: who is written there is given no page of memory any more, and ends at the next that
    it wants."""
    place = next((one for one in PLACES if Path(one, "cgroup.procs").exists()), "")
    group = Path(place, f"raycib-test-{os.getpid()}")
    try:
        group.mkdir()
        (group / PLACES.get(place, "")).write_text("0")
    except OSError as error:
        pytest.skip(f"control groups need root and a memory controller: {error}")
    try:
        yield group / "cgroup.procs"
    finally:
        group.rmdir()
