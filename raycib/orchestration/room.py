"""How many packs fit side by side."""

import os

from raycib.presets import Execution


def packs_that_fit(execution: Execution, cpus: float, gpus: float) -> int:
    """By GPUs where workers want them, else one a whole CPU; at least 1."""
    if execution.packs_at_once:
        return execution.packs_at_once
    if execution.gpus_per_worker:
        have, want = gpus, execution.gpus_per_worker
    else:
        have, want = cpus, max(1.0, execution.cpus_per_worker)
    return max(1, int(have // (want * execution.workers)))


def packs_here(execution: Execution) -> int:
    """On this machine alone, for a plan without a cluster."""
    return packs_that_fit(execution, float(os.cpu_count() or 1), 0.0)
