"""Memory that a group has freed and needs again at its next step."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Of glibc's `mallopt` (malloc.h)."""


def keep_memory() -> None:
    """Have this process keep what it frees. A group's tensors are large enough for malloc to map
    and unmap them at every step, and the page faults cost a quarter of its time. Does nothing where
    the C library has no `mallopt`."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, 2**30)
        mallopt(_TOP_PAD, 2**26)
