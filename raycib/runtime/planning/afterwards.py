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
    found: list[tuple[str, float, float | None]] = [
        ("tokens of rows trained on", told.useful_tokens, sum(o.get("useful", 0) for o in tokens)),
        ("the same with padding", told.computed_tokens, sum(o.get("computed", 0) for o in tokens)),
        ("conversations read, at most", told.judged, counts.get("judge_calls")),
    ]
    if all(one.told for one in by_workers):
        hours = sum(one.hours for one in by_workers)
        what = "training and measures: seconds of one worker, and until all were done"
        found.append((what, 3600 * hours, timings["training"]))
    if worker:
        most = max((peak / GIB for peak in peaks if peak is not None), default=None)
        found.append(("memory of a group's worker, GiB", sum(worker.values()) / GIB, most))
    return [Planned(quantity=name, planned=plan, measured=run) for name, plan, run in found]
