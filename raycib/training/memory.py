"""The memory of the process that trains: what it keeps, and how much it was at most."""

import ctypes
import resource

import torch

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


def peak_bytes(device: torch.device) -> int:
    """The most that was allocated on a GPU so far; on a CPU, the most that this process held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts in KiB
