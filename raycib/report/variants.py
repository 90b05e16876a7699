"""The variants of a comparison in its results: each one's cells over the seeds."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from raycib.report.forms import BEFORE
from raycib.report.frame import NAMES, PLAIN
from raycib.report.statistics import NOTHING, Spread, less, mean_std, wilson_over_seeds
from raycib.results import Samples

CIB = "cib"
COHERENT = 0.1
"""Largest share of answers to harmful prompts that may be neither harmful nor refusals."""


@dataclass(frozen=True)
class ResultRow:
    """The cells of one variant (a method, or a form of one, at one strength): equal but for their
    seeds."""

    name: str
    """The series, with its strength where the series has several."""
    series: str
    method: str
    strength: float
    safety_data: bool
    """Whether it trains on refusals or on harmful prompts, which the others never see."""
    done: pd.DataFrame
    failed: pd.DataFrame

    @property
    def plain(self) -> bool:
        """Whether this is fine-tuning without any defence."""
        return self.method == PLAIN

    @property
    def coherent(self) -> bool:
        """Whether at most 10 % of its answers to harmful prompts are neither harmful nor refusals;
        true where that was not measured."""
        return not less(COHERENT, self.mean("incoherent_rate"))

    def mean(self, column: str) -> float:
        """Mean over the seeds that finished; nan where not measured."""
        return self.spread(column).mean

    def spread(self, column: str) -> Spread:
        """Mean and sample standard deviation over the seeds that finished."""
        return mean_std(self.done.get(column, []))

    def answers(self, samples: Samples) -> dict[int, Sequence[Mapping[str, Any]]]:
        """What it said to harmful prompts, by seed."""
        cells = zip(self.done["seed"], self.done["key"], strict=True)
        return {int(seed): samples[key] for seed, key in cells if samples.get(key)}


def settings(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The parts of ``frame`` whose variants can be compared: one model, one task. The name of a
    part is "" where it is the only one."""
    parts = frame.groupby(["model", "task"], sort=False, dropna=False)
    for (model, task), part in parts:
        yield "" if len(parts) == 1 else f"{model}, {task}", part


def variants(frame: pd.DataFrame) -> list[ResultRow]:
    """The variants of one setting: plain LoRA first, then in the order given, each at rising
    strength.

    The first of several kinds of plain LoRA (other learning rates, say) is the one called "LoRA",
    or else the one given first; the rest take their places among the methods.
    """
    found = []
    for _, cells in frame.groupby("series", sort=False):
        several = cells["strength"].nunique() > 1
        for _, part in cells.groupby("strength", sort=True):
            found.append(row_of(part, several))
    standard = [variant for variant in found if variant.plain]
    standard.sort(key=lambda variant: variant.series.split(",")[0] != NAMES[PLAIN])
    return sorted(found, key=lambda variant: variant is not standard[0]) if standard else found


def by_series(found: Iterable[ResultRow]) -> dict[str, list[ResultRow]]:
    """Variants by their series, in the order given."""
    made: dict[str, list[ResultRow]] = {}
    for variant in found:
        made.setdefault(variant.series, []).append(variant)
    return made


def row_of(cells: pd.DataFrame, several: bool = False) -> ResultRow:
    """The variant of cells that are equal but for their seeds; ``several`` says that its series has
    other strengths as well."""
    name, strength = str(cells["series"].iloc[0]), float(cells["strength"].iloc[0])
    lost = cells["failed"].notna().to_numpy()
    return ResultRow(
        name=f"{name} at {strength:g}" if several else name,
        series=name,
        method=str(cells["method"].iloc[0]),
        strength=strength,
        safety_data=bool(cells["safety_data"].any()),
        # Rows of a hundred columns are dear to pick: of most variants all are there, or none.
        done=cells[~lost] if lost.any() else cells,
        failed=cells[lost].sort_values("seed") if lost.any() else cells.iloc[:0],
    )


def plain_variant(found: Sequence[ResultRow]) -> ResultRow | None:
    """Plain LoRA, what every other variant is held against; None where no cell of it finished."""
    return found[0] if found and found[0].plain and len(found[0].done) else None


def best(
    found: Sequence[ResultRow], budget: float = math.inf, accuracy: float = 0
) -> ResultRow | None:
    """The coherent variant with the lowest mean HRR whose mean task loss is at most ``budget`` nats
    and whose mean task accuracy is not below ``accuracy``.

    Of equal ones the one with the lower task loss. None where there is none.
    """
    fit = [
        variant
        for variant in found
        if math.isfinite(variant.mean("hrr"))
        and variant.coherent
        and (budget == math.inf or _at_most(variant.mean("eval_loss"), budget))
        # A task accuracy that was not measured is not one that was kept.
        and (not accuracy or variant.mean("accuracy") >= accuracy - NOTHING)
    ]
    # Nine digits: two sums of equal rates are equal.
    return min(
        fit,
        key=lambda variant: (round(variant.mean("hrr"), 9), variant.mean("eval_loss")),
        default=None,
    )


def _at_most(value: float, most: float) -> bool:
    return math.isfinite(value) and not less(most, value)


def of(found: Sequence[ResultRow], *methods: str) -> list[ResultRow]:
    """Those of the variants that belong to ``methods``."""
    return [variant for variant in found if variant.method in methods]


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with the name of each cell's variant as ``variant``, in the order of the tables."""
    order, names = [], []
    for _, part in settings(frame):
        for variant in variants(part):
            cells = pd.concat([variant.done["seed"], variant.failed["seed"]]).sort_values()
            order += cells.index.tolist()
            names += [variant.name] * len(cells)
    return frame.loc[order].assign(variant=names)


def means(cells: pd.DataFrame, names: Iterable[str]) -> dict[str, float]:
    """``<name>_mean`` and ``<name>_std`` over the seeds of equal cells, nan where not measured."""
    found = {}
    for name in names:
        over_seeds = mean_std(cells.get(name, []))
        found |= {f"{name}_mean": over_seeds.mean, f"{name}_std": over_seeds.std}
    return found


def hrr_ends(cells: pd.DataFrame) -> dict[str, float]:
    """Wilson's interval at the mean HRR, as ``hrr_low``, ``hrr_high`` and ``hrr_n``, the fewest
    prompts that a seed has verdicts on; empty where there is none."""
    ends = wilson_over_seeds(cells["hrr"], cells["hrr_n"]) if "hrr_n" in cells else None
    return {"hrr_low": ends.low, "hrr_high": ends.high, "hrr_n": ends.n} if ends else {}


def before_row(aligned: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The model before fine-tuning as the first row of a table; ``aligned`` are flat scores."""
    place = {"series": BEFORE, "method": "", "strength": math.nan, "seeds": 1, "status": ""}
    return place | means(pd.DataFrame([aligned]), names)


def result_rows(
    row: ResultRow, numbers: Callable[[pd.DataFrame], Mapping[str, Any]], **place: Any
) -> list[dict[str, Any]]:
    """A variant in a table: a row with the ``numbers`` of its finished cells, if it has any, then
    one for each cell that failed, whose ``status`` says why. ``place`` are fields that name it
    besides its series, method and strength, or instead."""
    named = {"series": row.series, "method": row.method, "strength": row.strength} | place
    rows: list[dict[str, Any]] = []
    if len(row.done):
        rows.append({**named, "seeds": len(row.done), "status": "", **numbers(row.done)})
    for _, cell in row.failed.iterrows():
        status = f"failed (seed {cell['seed']}): {cell['failed']}"
        rows.append({**named, "seeds": 0, "status": status})
    return rows
