"""What fits on a machine or a cluster, side by side and at all."""

import os
from collections.abc import Iterable, Mapping

from raycib.config.presets import Execution
from raycib.costs.gpus import gpus_here

TRIAL_CPUS = 0.01
"""A trial only waits for its workers, which have resources of their own."""
ENGINE = "the engine that answers"
JUDGE = "the judge"
"""What a person calls them."""
CONVERSATIONS = 1000
"""A judge reads them in about the time that another one takes to load."""
SLACK = 1e-6
"""Ray counts in ten-thousandths."""


def groups_that_fit(execution: Execution, cpus: float, gpus: float) -> int:
    """By GPUs where workers want them, those of early services left out, else one a whole CPU; at
    least 1."""
    if execution.groups_at_once:
        return execution.groups_at_once
    if execution.gpus_per_worker:
        have, want = gpus, execution.gpus_per_worker
        if execution.judge_starts_early:
            _, *services = needs(execution).values()
            have -= sum(one["GPU"] for one in services)
    else:
        have, want = cpus, max(1.0, execution.cpus_per_worker)
    return max(1, int((have + SLACK) // (want * execution.workers)))


def groups_here(execution: Execution) -> int:
    """On this machine alone, for a plan without a cluster."""
    gpus = len(gpus_here()) if execution.gpus_per_worker else 0
    return groups_that_fit(execution, float(os.cpu_count() or 1), float(gpus))


def needs(execution: Execution) -> dict[str, dict[str, float]]:
    """CPUs and GPUs of each kind of work, by what a person calls it."""
    workers = execution.workers
    engines, judges = execution.engine_replicas or 1, execution.judge_replicas or 1
    return {
        "an adapter group": {
            "CPU": workers * execution.cpus_per_worker + TRIAL_CPUS,
            "GPU": workers * execution.gpus_per_worker,
        },
        ENGINE: {
            "CPU": engines * execution.engine_cpus,
            "GPU": engines * execution.engine_gpus,
        },
        JUDGE: {
            "CPU": judges * execution.judge_cpus,
            "GPU": judges * execution.judge_gpus,
        },
    }


def of_a_worker(execution: Execution) -> dict[str, float]:
    """What each worker of a group takes, as Ray is told: what it takes none of is left out."""
    taken = {"CPU": execution.cpus_per_worker, "GPU": execution.gpus_per_worker}
    return {name: amount for name, amount in taken.items() if amount}


def replicas(
    asked: int | None, gpus: float, nodes: Iterable[Mapping[str, float]], useful: int
) -> int:
    """How many engines of a kind work side by side: as many as were asked for, else one for each
    that is `useful`, as far as `nodes` have GPUs for them. On a CPU, or on a part of a GPU, a
    second one would only slow the first."""
    if asked is not None:
        return asked
    fit = sum(int(node.get("GPU", 0.0) // gpus) for node in nodes) if gpus >= 1 else 1
    return max(1, min(fit, useful))


def judges_for(conversations: int) -> int:
    """How many are useful."""
    return -(-conversations // CONVERSATIONS)


def fit_at_once(execution: Execution, there: Mapping[str, float]) -> bool:
    """Whether a group, the engine and the judge can all run at the same time."""
    wanted = needs(execution).values()
    return all(
        sum(one[kind] for one in wanted) <= there.get(kind, 0.0) + SLACK for kind in ("CPU", "GPU")
    )


def lacking(execution: Execution, there: Mapping[str, float], served: bool) -> list[str]:
    """What has no room even alone, a phrase each; the judge only where it is `served` by us."""
    replicas = {ENGINE: execution.engine_replicas, JUDGE: execution.judge_replicas}
    times = {name: f", {many} times," for name, many in replicas.items() if (many or 1) > 1}
    return [
        f"{name}{times.get(name, '')} wants {amount:g} {kind}s and there are {have:g}"
        for name, one in needs(execution).items()
        for kind, amount in one.items()
        if amount > (have := there.get(kind, 0.0)) + SLACK and (served or name != JUDGE)
    ]
