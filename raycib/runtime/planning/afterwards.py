"""What a plan said of a run, beside what the run took."""

from collections.abc import Mapping

from raycib.config.plan import Plan
from raycib.costs.memory import GIB
from raycib.results import Planned
from raycib.runtime.planning.estimate import Estimate
from raycib.runtime.sweep import Sweep

WORKERS = ("training", "references and measures")
"""Phases that workers go through."""


def beside(
    told: Estimate,
    sweep: Sweep,
    plan: Plan,
    counts: Mapping[str, int],
    timings: Mapping[str, float],
) -> list[Planned]:
    """The numbers of a plan that a run measures; `sweep` is as the run left it, `plan` what it had
    to do, `counts` and `timings` (seconds by phase) are the run's."""
    if not timings.get("training") or not plan.to_train:
        return []
    keys = (job.stage.key for level in plan.levels for group in level for job in group.jobs)
    took = [sweep.took[key] for key in keys if key in sweep.trained]
    tokens = [one["tokens"] or {} for one in took]
    peaks = [one["peak_bytes"] for one in took]
    worker = told.memory.get("a group's worker", {})
    by_workers = [one for one in told.phases if one.name in WORKERS]
    found = [
        Planned(
            quantity="tokens of rows trained on",
            planned=told.useful_tokens,
            measured=sum(one.get("useful", 0) for one in tokens),
        ),
        Planned(
            quantity="the same with padding",
            planned=told.computed_tokens,
            measured=sum(one.get("computed", 0) for one in tokens),
        ),
        Planned(
            quantity="conversations read, at most",
            planned=told.judged,
            measured=counts.get("judge_calls"),
        ),
    ]
    if all(one.told for one in by_workers):
        found.append(
            Planned(
                quantity="training and measures: seconds of one worker, and until all were done",
                planned=3600 * sum(one.hours for one in by_workers),
                measured=timings["training"],
            )
        )
    if worker:
        most = max((peak for peak in peaks if peak is not None), default=None)
        found.append(
            Planned(
                quantity="memory of a group's worker, GiB",
                planned=sum(worker.values()) / GIB,
                measured=None if most is None else most / GIB,
            )
        )
    return found
