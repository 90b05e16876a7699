"""Where a process computes, and whether it had the memory."""

from contextlib import suppress
from pathlib import Path

import torch


def device_of(gpus: float) -> torch.device:
    """Where this process computes; on a CPU with one thread."""
    if gpus:
        return torch.device("cuda", torch.cuda.current_device())
    torch.set_num_threads(1)
    return torch.device("cpu")


def ran_out(error: RuntimeError) -> bool:
    """Whether there was no memory for a tensor. A CPU's allocator has no class for that."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def ended_for_memory() -> int:
    """How many processes this machine has ended for want of memory since it started; 0 where its
    kernel does not say."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
