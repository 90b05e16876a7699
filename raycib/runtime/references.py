"""What a sweep reads of rows: what it looks up of the aligned model on them, how often that was
computed, and how much of its training were their tokens and how much was padding."""

from collections import Counter
from typing import Any

from raycib.config import Feature, RowsSpec, TaskSpec
from raycib.results import TrainedTokens
from raycib.runtime.sweep import Sweep
from raycib.store.kinds import FORWARDS


def references(sweep: Sweep) -> list[tuple[TaskSpec, tuple[Feature, ...]]]:
    """Rows with the readings of the aligned model that stages look up of them in training."""
    wanted: dict[str, tuple[TaskSpec, dict[Feature, None]]] = {}
    for stage in sweep.stages.values():
        method = stage.method_in_effect
        for rows, features in (
            (stage.task, method.features),
            (method.safety_rows, method.safety_features),
        ):
            if rows is not None and features:
                wanted.setdefault(rows.key, (rows, {}))[1].update(dict.fromkeys(features))
    return [(rows, tuple(features)) for rows, features in wanted.values()]


def distinct_examples(sweep: Sweep) -> int:
    """Rows whose reference anybody needs: trained on, beside them, and measured on."""
    return sum({rows.rows: rows.num_rows for rows, _ in _referred(sweep)}.values())


def reference_forwards(sweep: Sweep) -> int:
    """Examples that went through the aligned model for this grid's references, ever."""
    wanted = {
        (rows.rows, rows.max_length, ".".join(feature))
        for rows, features in _referred(sweep)
        for feature in features
    }
    return sum(
        one["examples"]
        for one in (record.about for record in sweep.store.records(FORWARDS))
        # Other sweeps in this store may ask other models, or these rows for something else.
        if one.get("model") == sweep.setup.model.key
        and any((one["rows"], one["max_length"], what) in wanted for what in one["readings"])
    )


def _referred(sweep: Sweep) -> list[tuple[TaskSpec | RowsSpec, tuple[Feature, ...]]]:
    """All rows with what is read of the aligned model on them."""
    measured = (each for one in sweep.evals.values() for each in one.referred)
    return [*references(sweep), *measured]


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
