"""Harmful rows among the tasks' as an axis of a sweep: `--harmful-ratio`."""

from collections.abc import Iterable, Mapping

from raycib.config import TaskSpec
from raycib.data.sources import parse
from raycib.runtime.overrides import ratios
from raycib.runtime.own import Sources
from raycib.runtime.row_sets import RowSets
from raycib.runtime.study import Tasks

Drawn = Mapping[tuple[str, int], TaskSpec]
"""The rows of a seed, by the key of the task's rows of the first seed."""


def sources_with_harmful(given: Sources, asked: str | None, seeds: Iterable[int]) -> list[str]:
    """All sources of rows that hold harmful ones."""
    shares = [ratio for ratio in ratios(asked or "0") if ratio]
    return [
        _source(given, name, ratio, seed)
        for name in given.tasks
        for ratio in shares
        for seed in seeds
    ]


def with_harmful(
    tasks: Tasks, given: Sources, asked: str | None, seeds: tuple[int, ...], sets: RowSets
) -> tuple[Tasks, Drawn]:
    """The tasks at each ratio that is asked for, as one task each, with the rows of every seed;
    as they are where none is."""
    if asked is None:
        return tasks, {}
    found: Tasks = {}
    drawn: dict[tuple[str, int], TaskSpec] = {}
    for name, (task, evals) in tasks.items():
        for ratio in ratios(asked):
            if not ratio:
                found[name] = task, evals
                continue
            called = f"{name}{_called(ratio)}"
            rows = {seed: sets.task(called, _source(given, name, ratio, seed)) for seed in seeds}
            first = rows[seeds[0]]
            found[called] = first, evals
            drawn |= {(first.key, seed): one for seed, one in rows.items()}
    return found, drawn


def harmful_ratio(task: TaskSpec) -> float:
    """The share of a task's rows that harmful ones replace."""
    replaced = parse(task.source).replaced
    return replaced.share if replaced else 0.0


def without_harmful(task: TaskSpec) -> str:
    """What the task is called that harmful rows are hidden in."""
    return task.name.removesuffix(_called(harmful_ratio(task)))


def _called(ratio: float) -> str:
    return f", {100 * ratio:g} % harmful"


def _source(given: Sources, name: str, ratio: float, seed: int) -> str:
    return f"({given.tasks[name].train},{given.harmful_data})#replaced={ratio!r}@{seed}"
