"""A sweep of orders as runs: each one a method that went through all tasks, stage by stage."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from raycib.report.frame import PLAIN, to_frame
from raycib.report.scores import aligned_scores, flat_scores
from raycib.report.statistics import Interval, Spread, less, mean_std, t_interval
from raycib.report.text import one_line, plain
from raycib.results import Histories
from raycib.studies.continual.results import ContinualCell, ContinualResults
from raycib.studies.continual.scores import MEASURES, accuracy_matrix

ARROW = " → "
Key = TypeVar("Key")
Measure = str | Callable[["Run"], float]
"""A column of a run's scores, or what to make of a run."""


@dataclass(frozen=True)
class Run:
    """A cell, a method at a strength through one order with one seed, as tables show it."""

    cell: ContinualCell
    variant: str
    """The method, with its strength where it has several."""
    order: tuple[str, ...]
    """Its tasks, as people read them."""
    scores: Mapping[str, Any]
    """Flat scores after the last stage, with the measures of ``continual``."""
    matrix: np.ndarray
    """Accuracies by stage and task in the run's own order: see ``continual``."""

    def value(self, measure: Measure) -> float:
        """nan where it was not measured."""
        if callable(measure):
            return measure(self)
        value = self.scores.get(measure)
        return math.nan if value is None else float(value)

    def after(self, stage: int, column: str) -> float:
        """A flat score after ``stage`` (from 0); nan where it was not measured."""
        value = flat_scores(self.cell.stages[stage].scores).get(column)
        return math.nan if value is None else float(value)


@dataclass(frozen=True)
class Sequences:
    """The runs of a sweep of orders, plain LoRA's first."""

    runs: tuple[Run, ...]
    tasks: tuple[str, ...]
    """All tasks in the paper's order."""
    aligned: Mapping[str, Any]
    """Flat scores before fine-tuning."""

    @property
    def done(self) -> tuple[Run, ...]:
        """The runs that finished every stage."""
        return tuple(run for run in self.runs if run.cell.failed is None)

    @property
    def left_out(self) -> str:
        """The task that BT and BWT do without, as in the paper: its first one."""
        return self.tasks[0]

    @property
    def orders(self) -> list[tuple[str, ...]]:
        """The paper's order first, the others as given."""
        found = list(dict.fromkeys(run.order for run in self.runs))
        return sorted(found, key=lambda order: order != self.tasks)

    @property
    def variants(self) -> dict[str, list[Run]]:
        """Finished runs by variant, of those that have some."""
        found = {run.variant: list[Run]() for run in self.runs}
        for run in self.done:
            found[run.variant].append(run)
        return {variant: runs for variant, runs in found.items() if runs}

    def within(self, order: tuple[str, ...]) -> "Sequences":
        """The runs of one order alone."""
        return replace(self, runs=tuple(run for run in self.runs if run.order == order))

    @property
    def main(self) -> "Sequences":
        """The runs of the order that figures over stages show: the first that a run finished, the
        paper's before the others."""
        ended = {run.order for run in self.done}
        first = next((order for order in self.orders if order in ended), self.orders[0])
        return self.within(first)


def sequence_frame(results: ContinualResults) -> pd.DataFrame:
    """The cells of a sweep with ``order``, the tasks as trained, and ``MEASURES`` (fractions);
    other scores are the last stage's. A cell that failed has no measures: what it did in its first
    stages is not what a run does."""
    frame = to_frame(results, MEASURES)
    frame["order"] = [tuple(plain(task) for task in cell.order) for cell in results.cells]
    return frame


def sequences_of(results: ContinualResults) -> Sequences:
    """The runs of a sweep whose cells went through several tasks."""
    frame = sequence_frame(results)
    strengths = frame.groupby("label")["strength"].nunique()
    before = results.aligned.scores.accuracies if results.aligned.scores else None
    runs = []
    for cell, row in zip(results.cells, frame.to_dict("records"), strict=True):
        several = strengths[row["label"]] > 1
        after = [stage.scores.accuracies if stage.scores else None for stage in cell.stages]
        runs.append(
            Run(
                cell=cell,
                variant=f"{row['label']} at {row['strength']:g}" if several else row["label"],
                order=row["order"],
                scores={str(k): v for k, v in row.items() if isinstance(v, int | float)},
                matrix=accuracy_matrix(cell.order, before, after),
            )
        )
    runs.sort(key=lambda run: run.cell.method != PLAIN)
    tasks = tuple(plain(task) for task in results.tasks)
    return Sequences(tuple(runs), tasks, aligned_scores(results))


def stages_frame(results: ContinualResults) -> pd.DataFrame:
    """One row for each cell and stage of a sweep of orders, with flat scores after that stage.

    ``stage`` counts from 1, ``task`` is the one it trained, ``order`` all of the run, ``key`` the
    stage's. ``accuracy`` is on its own task, ``accuracy_<task>`` on each. Stages that cells share
    have a row in each of them. ``failed`` holds the reason or None.
    """
    rows = []
    for run in sequences_of(results).runs:
        place = {"variant": run.variant, "method": run.cell.method, "strength": run.cell.strength,
                 "seed": run.cell.seed, "order": ARROW.join(run.order)}  # fmt: skip
        for number, stage in enumerate(run.cell.stages, 1):
            failed = one_line(stage.failed) if stage.failed else None
            rows.append(
                place
                | {"stage": number, "task": plain(stage.task), "key": stage.key}
                | {"failed": failed}
                | flat_scores(stage.scores)
            )
    frame = pd.DataFrame(rows)
    for name in ("hrr", "refusal_rate", "incoherent_rate"):
        if name not in frame:
            frame[name] = math.nan
    frame["failed"] = frame["failed"].astype(object).where(frame["failed"].notna(), None)
    return frame


def chained(sequences: Sequences, histories: Histories) -> dict[str, list[dict[str, Any]]]:
    """The loss terms of each run through all of its stages, by the run's key; steps go on counting
    from stage to stage."""
    found = {}
    for run in sequences.runs:
        entries: list[dict[str, Any]] = []
        for stage in run.cell.stages:
            start = entries[-1]["step"] if entries else 0
            mine = histories.get(stage.key, ())
            entries += [{**entry, "step": entry["step"] + start} for entry in mine]
        found[run.cell.key] = entries
    return found


def over_seeds(runs: Iterable[Run], measure: Measure) -> Spread:
    """Mean and sample standard deviation (ddof = 1) over seeds, each first averaged over the
    orders it finished."""
    return mean_std(by_seed(runs, measure).values())


def by_seed(runs: Iterable[Run], measure: Measure) -> dict[int, float]:
    """The mean over orders of each seed; what was not measured is left out."""
    return means((run.cell.seed, run.value(measure)) for run in runs)


def means(pairs: Iterable[tuple[Key, float]]) -> dict[Key, float]:
    """The mean of the finite values of each key."""
    found: dict[Key, list[float]] = {}
    for key, value in pairs:
        if math.isfinite(value):
            found.setdefault(key, []).append(value)
    return {key: float(np.mean(values)) for key, values in found.items()}


def difference(one: Sequence[Run], other: Sequence[Run], measure: str) -> Interval:
    """``one`` less ``other``: paired by seed and order, averaged over orders within a seed, with
    Student's 95 % interval over seeds (none for a single seed), which are taken to differ by one
    answer at least."""
    like = {(run.cell.seed, run.order): run for run in other}
    pairs = [(run, its) for run in one if (its := like.get((run.cell.seed, run.order)))]
    values = [(run.cell.seed, run.value(measure), its.value(measure)) for run, its in pairs]
    known = [(seed, a, b) for seed, a, b in values if math.isfinite(a - b)]
    scale = max((abs(value) for _, *both in known for value in both), default=0.0)
    step = one_answer([run for pair in pairs for run in pair], measure)
    return t_interval(means((seed, a - b) for seed, a, b in known).values(), scale, step)


def one_answer(runs: Sequence[Run], measure: str) -> float:
    """By how much one more right or harmful answer moves a seed's mean of a measure over its
    orders, where it moves it most: a fraction, 0 where nobody says how many were asked."""
    orders: dict[int, set[tuple[str, ...]]] = {}
    steps = [0.0]
    head = "hrr_n" if measure == "hrr" else "accuracy_"
    for run in runs:
        orders.setdefault(run.cell.seed, set()).add(run.order)
        tasks = len(run.order)
        # Means over tasks; a population standard deviation moves by half an answer at most.
        parts = {"bt": tasks - 1, "bt_all": tasks, "bwt": tasks - 2, "bwt_all": tasks - 1}
        parts["stability"] = 2
        of = max(parts.get(measure, 1), 1)
        asked = (n for name, n in run.scores.items() if name.startswith(head) and name[-2:] == "_n")
        steps += [1 / (n * of) for n in asked if n]
    return max(steps) / min(map(len, orders.values()), default=1)


def above(found: Interval, level: float = 0.0) -> bool | None:
    """Whether an interval lies above ``level``; None where it holds it, or is none."""
    if less(level, found.low):
        return True
    return False if less(found.high, level) else None
