"""What fits on a machine or a cluster, side by side and at all."""

import os
from collections.abc import Mapping

from raycib.config.presets import Execution

TRIAL_CPUS = 0.01
"""A trial only waits for its workers, which have resources of their own."""
SLACK = 1e-6
"""Ray counts in ten-thousandths."""


def groups_that_fit(execution: Execution, cpus: float, gpus: float) -> int:
    """By GPUs where workers want them, else one a whole CPU; at least 1."""
    if execution.groups_at_once:
        return execution.groups_at_once
    if execution.gpus_per_worker:
        have, want = gpus, execution.gpus_per_worker
    else:
        have, want = cpus, max(1.0, execution.cpus_per_worker)
    return max(1, int(have // (want * execution.workers)))


def groups_here(execution: Execution) -> int:
    """On this machine alone, for a plan without a cluster."""
    return groups_that_fit(execution, float(os.cpu_count() or 1), 0.0)


def needs(execution: Execution) -> dict[str, dict[str, float]]:
    """CPUs and GPUs of each kind of work, by what a person calls it."""
    workers = execution.workers
    return {
        "an adapter group": {
            "CPU": workers * execution.cpus_per_worker + TRIAL_CPUS,
            "GPU": workers * execution.gpus_per_worker,
        },
        "the engine that answers": {"CPU": execution.engine_cpus, "GPU": execution.engine_gpus},
        "the judge": {"CPU": execution.judge_cpus, "GPU": execution.judge_gpus},
    }


def fit_at_once(execution: Execution, there: Mapping[str, float]) -> bool:
    """Whether a group, the engine and the judge can all run at the same time."""
    wanted = needs(execution).values()
    return all(
        sum(one[kind] for one in wanted) <= there.get(kind, 0.0) + SLACK for kind in ("CPU", "GPU")
    )


def lacking(execution: Execution, there: Mapping[str, float], served: bool) -> list[str]:
    """What has no room even alone, a phrase each; the judge only where it is `served` by us."""
    return [
        f"{name} wants {amount:g} {kind}s and there are {there.get(kind, 0.0):g}"
        for name, one in needs(execution).items()
        for kind, amount in one.items()
        if amount > there.get(kind, 0.0) + SLACK and (served or name != "the judge")
    ]
