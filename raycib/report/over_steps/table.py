"""Rows of models that were looked at while they were trained."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from raycib.report.forms import interval, number
from raycib.report.over_steps.survival import Kept, Lost, kept, lost, median
from raycib.report.table import Column
from raycib.report.variants import ResultRow, settings, variants
from raycib.results import Cell, Results

Curve = list[tuple[int, float]]
"""Harmful response rates by step, from before the first to the last."""


@dataclass(frozen=True)
class Followed:
    """A row whose seeds were looked at after the same steps."""

    setting: str
    row: ResultRow
    curves: Mapping[int, Curve]
    """By seed."""

    @property
    def looks(self) -> list[int]:
        """Steps, 0 among them."""
        return sorted({step for curve in self.curves.values() for step, _ in curve})

    @property
    def losses(self) -> list[Lost]:
        """By seed."""
        return [lost(curve) for curve in self.curves.values()]

    @property
    def kept(self) -> list[Kept]:
        """The share of seeds with their safety at each look."""
        return kept(self.losses, self.looks)

    def mean(self, step: int) -> float:
        """The rate at a step, over the seeds."""
        rates = [rate for curve in self.curves.values() for at, rate in curve if at == step]
        return sum(rates) / len(rates)


def followed(results: Results, frame: pd.DataFrame) -> list[Followed]:
    """The rows that have points, in the order of the tables. A seed that lacks one is left out, and
    so is a stage that took no step."""
    curves = {(cell.key, cell.seed): _curve(cell) for cell in results.cells if cell.points}
    found = []
    for name, part in settings(frame):
        for row in variants(part):
            places = zip(row.done["key"], row.done["seed"], strict=True)
            mine = {int(seed): curves.get((key, int(seed)), []) for key, seed in places}
            most = max(map(len, mine.values()), default=0)
            whole = {seed: curve for seed, curve in mine.items() if len(curve) == most > 1}
            if whole:
                found.append(Followed(name, row, whole))
    return found


def _curve(cell: Cell) -> Curve:
    rates = [(point.step, point.scores.hrr) for point in cell.points]
    return [(step, rate.value) for step, rate in rates if rate and rate.value is not None]


def over_steps_table(rows: Sequence[Followed]) -> pd.DataFrame:
    """When each row's seeds lose their safety; rates are in [0, 1]."""
    found = []
    for one in rows:
        curve, losses = one.kept, one.losses
        highest = max(one.looks, key=one.mean)
        found.append({
            "setting": one.setting, "series": one.row.name, "seeds": len(one.curves),
            "lost": sum(math.isfinite(each.by) for each in losses),
            "steps": ", ".join(map(_between, losses)),
            "median": median(curve),
            "kept": curve[-1].share, "kept_low": curve[-1].low, "kept_high": curve[-1].high,
            "last_step": curve[-1].step,
            "highest": one.mean(highest), "highest_at": highest,
            "hrr": one.mean(one.looks[-1]),
        })  # fmt: skip
    return pd.DataFrame(found)


COLUMNS = [
    Column("setting", "Setting", optional=True),
    Column("series", "Method"),
    Column("seeds", "Seeds"),
    Column("lost", "Lost it"),
    Column("steps", "Lost after, by step (each seed)"),
    Column("median", "Half lost it by", lambda row, field: _look(row[field], row["last_step"])),
    Column("kept", "Kept it to the end, %", interval(100, 0)),
    Column("highest", "Highest HRR, %", number("z.1f", 100)),
    Column("highest_at", "at step"),
    Column("hrr", "HRR at the end, %", number("z.1f", 100)),
]


def _between(one: Lost) -> str:
    if not math.isfinite(one.by):
        return f"> {one.after}"
    return f"{one.after}-{one.by:g}" if one.by else "before"


def _look(step: float, last: int) -> str:
    return f"{step:g}" if math.isfinite(step) else f"> {last}"
