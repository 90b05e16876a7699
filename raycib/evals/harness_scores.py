"""Stored scores of lm-eval's benchmarks, as tables show them. lm-eval is not needed for that."""

from typing import Any

from raycib.config.lm_eval import LmEvalSpec
from raycib.metrics import is_share, student
from raycib.store import Store
from raycib.store.kinds import BENCHMARKS

FILE = "scores.json"
PREFERRED = "acc_norm"
"""Shown of a task that has it; else the first metric of the task's own list is."""


def stored_scores(
    store: Store, spec: LmEvalSpec, model_id: str, engine: str
) -> list[dict[str, Any]] | None:
    """What lm-eval said of a model, or None where it has not been asked."""
    record = store.get(BENCHMARKS, spec.stored_key(model_id, engine), only=(FILE,))
    return record.value(FILE) if record else None


def shown(entries: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scores that tables show of a benchmark, and all others, by "task metric" ("task metric
    filter" where answers are filtered).

    Of a group with a score of its own that alone is shown, else one score of each of its parts.
    The interval is Student's with lm-eval's standard error; none where that is 0, as it is when
    all answers are right.
    """
    tasks: dict[str, list[dict[str, Any]]] = {}
    for one in entries:
        tasks.setdefault(one["task"], []).append(one)
    # What was stored before parts were told has the first group alone.
    first = next((name for name, of_group in tasks.items() if of_group[0]["group"]), None)
    chosen = [
        next((one for one in of_task if one["metric"] == PREFERRED), of_task[0])
        for name, of_task in tasks.items()
        if not of_task[0].get("part", first not in (None, name))
    ]
    main: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for one in entries:
        (main if any(one is it for it in chosen) else others)[_name(one)] = _score(one)
    return main, others


def _name(entry: dict[str, Any]) -> str:
    parts = [entry["task"], entry["metric"]]
    return " ".join([*parts, *([entry["filter"]] if entry["filter"] != "none" else [])])


def _score(entry: dict[str, Any]) -> dict[str, Any]:
    value, error = entry["value"], entry["stderr"]
    low = high = None
    if error and entry["n"] > 1:
        half = student(entry["n"] - 1) * error
        low, high = value - half, value + half
        if is_share(_name(entry)):
            low, high = max(0.0, low), min(1.0, high)
    return {"value": value, "low": low, "high": high, "n": entry["n"], "stderr": error}
