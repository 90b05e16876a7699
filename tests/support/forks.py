"""Children of a process that has imported everything: each costs milliseconds."""

import gc
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

_LATE = os.memfd_create("late")
"""Names of the modules that children had when they ended."""


def forked(work: Callable[[], object]) -> int:
    """The pid of a new process that does ``work`` and ends: 0, what ``work`` exits with, or 1 after
    a traceback. What earlier ones imported by themselves is imported here first."""
    _import_late()
    gc.freeze()  # a child looks through its own objects alone
    child = os.fork()
    if child:
        return child
    code = 0
    try:
        work()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    with suppress(OSError):  # some may write no more
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(_LATE, "".join(f"{name}\n" for name in list(sys.modules)).encode())
    os._exit(code)


def _import_late() -> None:
    os.lseek(_LATE, 0, os.SEEK_SET)
    names = os.read(_LATE, 1 << 24).decode().split("\n")
    for name in set(names) - sys.modules.keys():
        with suppress(Exception):  # some names are of no file
            importlib.import_module(name)
    os.ftruncate(_LATE, 0)
    os.lseek(_LATE, 0, os.SEEK_SET)
