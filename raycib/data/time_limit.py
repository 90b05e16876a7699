"""A limit on the time of code in any thread: chat templates are programs, and may not end."""

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOOK_EVERY_S = 0.2

_lock = threading.Lock()
_deadlines: dict[int, float] = {}
"""Of the threads that are within a limit, on the monotonic clock."""
_watching = False


class TookTooLong(BaseException):
    """What a limit raises in its own thread; no `except Exception` on the way holds it up."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within it, code that is still running after `seconds` gets `TookTooLong`.

    Signals reach the main thread alone, and Ray's workers call from others; so a thread looks at
    the clock and raises the error where it belongs. It comes between two steps of the interpreter:
    one endless step of C code is not ended by it. Limits do not nest.
    """
    global _watching
    thread = threading.get_ident()
    with _lock:
        _deadlines[thread] = time.monotonic() + seconds
        if not _watching:
            _watching = True
            threading.Thread(target=_watch, name="time limits", daemon=True).start()
    try:
        yield
    finally:
        with _lock:
            _deadlines.pop(thread, None)


def _watch() -> None:
    """End what is late; ends itself when there is nothing to look at."""
    global _watching
    while True:
        time.sleep(LOOK_EVERY_S)
        with _lock:
            if not _deadlines:
                _watching = False
                return
            late = [t for t, deadline in _deadlines.items() if deadline < time.monotonic()]
            for thread in late:
                del _deadlines[thread]  # under the lock: it never hits what comes after the limit
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread), ctypes.py_object(TookTooLong)
                )
