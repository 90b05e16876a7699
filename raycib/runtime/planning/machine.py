"""The machine that a worker computes on, and what it may take of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from raycib.config.presets import Execution
from raycib.costs.gpus import GPU, USUAL, gpu_here, gpu_named, gpus_here
from raycib.costs.memory import USABLE
from raycib.runtime import joins_a_cluster
from raycib.runtime.capacity import groups_here
from raycib.runtime.options import Options

CGROUPS = Path("/sys/fs/cgroup")
LIMITS = CGROUPS / "memory.max", CGROUPS / "memory/memory.limit_in_bytes"
"""Of a container's memory, by version 2 of cgroups and by version 1."""


@dataclass(frozen=True)
class Machine:
    """Where a worker computes."""

    gpu: GPU | None
    """None: on the CPU."""
    room: int | None
    """Bytes that one worker may take; None where that is not known."""
    known: bool
    """Whether the GPU was named or found; else it is the usual one, assumed."""
    there: Mapping[str, float] = field(default_factory=dict)
    """CPUs and GPUs in all; empty where that is not known."""

    def room_of(self, gpus: float, replicas: int = 1) -> int | None:
        """Bytes of so many GPUs, or of a part of one, that one process may take; without GPUs, of
        one worker, which so many share."""
        if self.gpu:
            return int(self.gpu.memory * USABLE * (gpus or 1))
        return None if self.room is None else self.room // replicas

    @property
    def name(self) -> str:
        """For people."""
        return self.gpu.name if self.gpu else "CPU"


def machine_of(options: Options, execution: Execution) -> Machine:
    """The GPU of `--gpu`, or this machine's, or the usual one; without GPUs a share of this
    machine's memory. Of a cluster's machines nothing is known. Raises `UserError` for a name that
    is not known."""
    on_cluster = joins_a_cluster() and not options.local
    if execution.gpus_per_worker or options.gpu:
        found = None if on_cluster else gpu_here()
        gpu = gpu_named(options.gpu) if options.gpu else found
        chosen = gpu or USUAL
        share = min(1.0, execution.gpus_per_worker or 1.0)
        ours = gpu is not None and not options.gpu and not options.local
        there = _there(len(gpus_here())) if ours else {}
        return Machine(chosen, int(chosen.memory * USABLE * share), gpu is not None, there)
    if on_cluster:
        return Machine(None, None, False)
    side_by_side = 1 if options.local else groups_here(execution) * execution.workers
    there = {} if options.local else _there(0)
    return Machine(None, int(memory_here() * USABLE / side_by_side), True, there)


def _there(gpus: int) -> dict[str, float]:
    """What a Ray of one's own has."""
    return {"CPU": float(os.cpu_count() or 1), "GPU": float(gpus)}


def memory_here() -> int:
    """Bytes of this machine, or of what a container may take of it."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in filter(Path.is_file, LIMITS):
        limit = file.read_text().strip()
        found = min(found, int(limit)) if limit.isdecimal() else found
    return found
