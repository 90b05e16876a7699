"""How much of a result lies in the order of tasks, how much in the method: analysis of variance.

The model is y = order + method + order x method + seed + error, with one run for each order, method
and seed. Seeds are blocks: runs of one seed share initial weights and the order of their rows, so
what a seed does to all of them alike is no error. The error is what is left, (orders x methods - 1)
(seeds - 1) degrees of freedom; F tests are against it. With one seed the interaction cannot be told
from error and takes its place. Orders and methods are fixed: the F tests speak of those that were
run.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from raycib.counting import count
from raycib.report.forms import number, p_value
from raycib.report.statistics import tolerance
from raycib.report.table import Column
from raycib.studies.continual.sequences import Measure, Sequences, means

ORDER, METHOD, SEED, ERROR = "order", "method", "seed", "error"
BOTH = "order x method"
RESPONSES = {
    "hrr": "final HRR",
    "bt": "BT",
    "bwt": "BWT",
    "bwt_all": "BWT, all tasks",
}
"""What is analysed, and how people call it."""
NO_VARIANCE = "no variance"
"""Said where all runs gave one number, but for rounding."""


@dataclass(frozen=True)
class Source:
    """A part of the variance: ``ss`` is its sum of squares, ``share`` (eta squared) that part of
    the total, ``f`` and ``p`` its test against the error, nan where there is none."""

    name: str
    df: int
    ss: float
    share: float
    f: float = math.nan
    p: float = math.nan


def anova(values: np.ndarray) -> list[Source]:
    """Sources of a balanced design: ``values`` has the shape (orders, methods, seeds).

    A source whose every effect is rounding alone, held against the largest value, has no sum of
    squares. Without any variance every share is nan.

    Raises:
        ValueError: fewer than two orders or methods, or a value that is not finite.
    """
    if values.ndim != 3 or min(values.shape[:2]) < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"no balanced design of shape {values.shape}: it takes 2 orders, 2 methods"
        )
    orders, methods, seeds = values.shape
    crossed = (orders - 1) * (methods - 1)
    axes: dict[str, tuple[int, ...]] = {ORDER: (1, 2), METHOD: (0, 2)}
    degrees = {ORDER: orders - 1, METHOD: methods - 1}
    if seeds > 1:
        axes |= {BOTH: (2,), SEED: (0, 1)}
        degrees |= {BOTH: crossed, SEED: seeds - 1, ERROR: (orders * methods - 1) * (seeds - 1)}
    else:
        degrees |= {ERROR: crossed}
    rest, effects = values - values.mean(), {}
    for name, over in axes.items():  # each the mean of what the ones before it leave
        effects[name] = rest.mean(axis=over, keepdims=True)
        rest = rest - effects[name]
    effects[ERROR] = rest
    smallest = tolerance(values.ravel())
    squares = {
        name: float((effect**2).sum()) * values.size / effect.size
        if np.abs(effect).max() > smallest
        else 0.0
        for name, effect in effects.items()
    }
    total, noise = sum(squares.values()), squares[ERROR] / degrees[ERROR]
    found = []
    for name, ss in squares.items():
        share = ss / total if total > 0 else math.nan
        f = ss / degrees[name] / noise if name != ERROR and noise > 0 else math.nan
        p = float(stats.f.sf(f, degrees[name], degrees[ERROR])) if math.isfinite(f) else math.nan
        found.append(Source(name, degrees[name], ss, share, f, p))
    return found


@dataclass(frozen=True)
class Analysis:
    """The variance of one response; ``runs`` counts the runs in it, of ``of`` that finished."""

    sources: tuple[Source, ...]
    orders: int
    methods: int
    seeds: int
    runs: int
    of: int

    def source(self, name: str) -> Source:
        """The source called ``name``, which the model has."""
        return next(source for source in self.sources if source.name == name)


def analyse(sequences: Sequences, measure: Measure) -> Analysis | None:
    """The variance of ``measure``, in squares of its unit; None where runs that finished hold no
    balanced design of two orders and two methods.

    Where some run is missing, the orders, the seeds or the methods that lack one are left out,
    whichever costs fewest runs.
    """
    known = {
        (run.order, run.variant, run.cell.seed): value
        for run in sequences.done
        if math.isfinite(value := run.value(measure))
    }
    axes = _balanced(known)
    if axes is None:
        return None
    values = np.array([known[place] for place in product(*axes)]).reshape([len(a) for a in axes])
    orders, methods, seeds = (len(axis) for axis in axes)
    return Analysis(tuple(anova(values)), orders, methods, seeds, values.size, len(known))


def variance_table(sequences: Sequences) -> pd.DataFrame:
    """A row for each of ``RESPONSES`` and source; sums of squares are in points squared."""
    rows = []
    for measure, label in RESPONSES.items():
        found = analyse(sequences, measure)
        for source in found.sources if found else ():
            rows.append(
                {"response": label, "source": source.name, "df": source.df,
                 "sum_of_squares": 1e4 * source.ss, "share": source.share, "f": source.f,
                 "p": source.p, "runs": found.runs if found else 0}
            )  # fmt: skip
    columns = ["response", "source", "df", "sum_of_squares", "share", "f", "p", "runs"]
    return pd.DataFrame(rows, columns=columns)


COLUMNS = (
    Column("response", "Of"),
    Column("source", "Source", lambda row, field: row[field].replace(" x ", " × ")),
    Column("df", "df"),
    Column("sum_of_squares", "Sum of squares, points²", number("z.1f")),
    Column("share", "Share (η²), %",
           lambda row, field: number("z.1f", 100)(row, field) or NO_VARIANCE),
    Column("f", "F", number("z.2f")),
    Column("p", "p", p_value),
)  # fmt: skip
"""What people see of ``variance_table``."""


def variance_caption(sequences: Sequences) -> str:
    """Which model it is, and what to doubt of it."""
    found = analyse(sequences, "hrr")
    if found is None:
        return ""
    model = (
        "y = order + method + order × method + seed + error: balanced, with seeds as blocks, the "
        "error what is left"
        if found.seeds > 1
        else "y = order + method + error: one seed, so the interaction is the error"
    )
    lost = found.of - found.runs
    left = (
        f" {count(lost, 'finished run is', 'finished runs are')} left out to keep it balanced."
        if lost
        else ""
    )
    return (
        f"Analysis of variance over {count(found.orders, 'order')}, "
        f"{count(found.methods, 'method')} and {count(found.seeds, 'seed')}: {model}. η²: share of "
        "the total sum of squares. Orders that begin alike share their first stages, so their "
        f"errors go together and p is too small.{left}"
    )


def _balanced(known: dict[tuple, float]) -> tuple[list, list, list] | None:
    """Orders, methods and seeds of which every combination is ``known``."""
    best: tuple[list, list, list] | None = None
    for dropped in range(3):
        axes = [list(dict.fromkeys(place[axis] for place in known)) for axis in range(3)]
        full = math.prod(len(axis) for i, axis in enumerate(axes) if i != dropped)
        counts = {value: sum(place[dropped] == value for place in known) for value in axes[dropped]}
        axes[dropped] = [value for value, count in counts.items() if count == full]
        orders, methods, seeds = axes
        if min(len(orders), len(methods)) > 1 and seeds and _size(axes) > _size(best or []):
            best = orders, methods, seeds
    return best


def _size(axes: Iterable[list]) -> int:
    found = [len(axis) for axis in axes]
    return math.prod(found) if found else 0


def spread_over_orders(
    sequences: Sequences, variant: str, measure: Measure
) -> dict[tuple[str, ...], float]:
    """The mean over seeds of each order that ``variant`` finished."""
    return means((run.order, run.value(measure)) for run in sequences.variants[variant])
