"""The memory of the process that trains: what it keeps and gives back, and its peak."""

import ctypes
import gc
import resource
from pathlib import Path

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


def give_back() -> None:
    """Have this process give back what nothing needs any more, to the system or to the GPU: what
    `keep_memory` kept of one piece of work is in the way of the next. Tensors in cycles go too."""
    gc.collect()
    torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_bytes(device: torch.device) -> int:
    """The most that was allocated on a GPU so far; on a CPU, the most that this process held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if not status.exists():  # macOS, which counts in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # On Linux getrusage's begins with what the process held that started this one.
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])  # in KiB
