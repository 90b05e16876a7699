"""What of a sweep's training were tokens of rows, and what was padding."""

from collections import Counter
from typing import Any

from raycib.results import TrainedTokens
from raycib.runtime.sweep import Sweep


def trained_tokens(sweep: Sweep) -> tuple[list[TrainedTokens], dict[str, Any]]:
    """A row for each task, and the sums for a sweep's counts: None while some stage is not counted
    whole (it is not trained, or was by an earlier version).

    Useful tokens are those of rows, computed ones what padding makes of them, in one forward and
    backward pass a step; other passes of a method come on top.
    """
    stages = sweep.alignment_stages | sweep.stages
    found: dict[str, Counter[str]] = {}
    whole = True
    for key, stage in stages.items():
        tokens = Counter(sweep.took.get(key, {}).get("tokens"))
        whole = whole and tokens["steps"] == stage.steps
        if tokens:
            found.setdefault(stage.task.name, Counter(stages=0)).update(tokens | {"stages": 1})
    rows = [
        TrainedTokens(
            task=task,
            stages=one["stages"],
            steps=one["steps"],
            useful_tokens=one["useful"],
            computed_tokens=one["computed"],
            useful_share=one["useful"] / one["computed"],
        )
        for task, one in found.items()
    ]
    total = sum(found.values(), Counter[str]())
    names = ("useful", "computed")
    return rows, {f"tokens_{name}": total[name] if whole else None for name in names}
