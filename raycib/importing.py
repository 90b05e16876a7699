"""How a process of ours begins: with thousands of modules, which no garbage is among.

Python's collector of reference cycles looks through all that there is again and again while it
grows. Of the CPU time in which torch, transformers and vLLM are imported that is a fifth.
"""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

SELDOM = 100_000, 20, 20
"""Of `gc.set_threshold`, for a program that keeps most of what it makes."""


@contextmanager
def no_collections() -> Iterator[None]:
    """Without that collector; what is there at the end is never looked through again."""
    atexit.register(_end_quietly)
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if before:
            gc.enable()


def _end_quietly() -> None:
    """Nothing more on stderr: all that is over but Triton's list of its own objects, a page of it,
    that nobody collected. To collect them takes 1.4 s of CPU time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def collect_seldom() -> None:
    """For a program that is ours as a whole. At its end Python looks through all that is left: for
    a CPU second, after a sweep."""
    gc.set_threshold(*SELDOM)
    atexit.register(_end_quietly)
    atexit.register(gc.freeze)


def end_imports_silently() -> None:
    """Ctrl-C while a program imports modules ends it as it ends any program, by that signal, but
    without the stack of what was just imported. Every other error is shown as before."""
    before = sys.excepthook

    def shown(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not (kind is KeyboardInterrupt and _imports(trace)):
            before(kind, error, trace)

    sys.excepthook = shown


def _imports(trace: TracebackType | None) -> bool:
    """Whether something below the program itself, which comes first, was being imported."""
    while trace and (trace := trace.tb_next):
        code = trace.tb_frame.f_code
        if code.co_name == "<module>" or code.co_filename.startswith("<frozen importlib"):
            return True
    return False
