"""lm-eval's benchmarks in the report of any study: a table of all variants."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from raycib.metrics import is_share
from raycib.report.forms import Form, mean, number, rate, said, short
from raycib.report.table import STATUS, Column, Table
from raycib.report.text import one_line
from raycib.report.variants import before_row, means, result_rows, settings, variants

HEAD = "benchmark_"
MEAN = "benchmarks_mean"
CAPTION = (
    "Benchmarks of lm-eval, each with its metric (acc_norm where a task has it, else the task's "
    "first): mean ± sample standard deviation (ddof = 1) over the seeds counted in the row. Shares "
    "are in per cent, other metrics as lm-eval gives them. Every cell's value with lm-eval's "
    "normal 95 % interval and the number of documents is in the table of cells; benchmarks.csv "
    "has all metrics. {0}Utility is the probes' alone and holds none of them."
)


def shown_fields(frame: pd.DataFrame) -> list[str]:
    """The columns of the scores that tables show."""
    fields = (str(name) for name in frame.columns)
    return [one for one in fields if one.startswith(HEAD) and f"{one}_n" in frame
            and not one.startswith("benchmark_detail_")]  # fmt: skip


def heading(field: str) -> str:
    """What people read of a column: "arc_challenge acc_norm, %"."""
    name = field.removeprefix(HEAD)
    return one_line(name) + ", %" * is_share(name)


def cell_columns(frame: pd.DataFrame) -> list[Column]:
    """Of the table of cells: values with their intervals and counts."""
    return [
        Column(field, heading(field), rate if is_share(field) else number(".4g"), optional=True)
        for field in shown_fields(frame)
    ]


def benchmarks_table(frame: pd.DataFrame, aligned: Mapping[str, Any]) -> Table | None:
    """A row for each variant, and for the model before fine-tuning; None without benchmarks."""
    names = shown_fields(frame)
    if not names:
        return None
    shares = sum(is_share(name.removeprefix(HEAD)) for name in names)
    details = [one for one in frame.columns
               if str(one).startswith("benchmark_detail_") and f"{one}_n" in frame]  # fmt: skip
    fields = [*names, MEAN, *details]
    rows: list[dict[str, Any]] = []
    if aligned:
        rows.append(before_row(aligned, fields))
    for _, part in settings(frame):
        for variant in variants(part):
            rows += result_rows(variant, lambda cells: means(cells, fields))
    several = shares > 1
    together = f"Mean: of the {shares} that are shares, each counted once. " if several else ""
    return Table(
        "benchmarks", pd.DataFrame(rows), _columns(names, shares), CAPTION.format(together),
        key=("series", "strength"),
    )  # fmt: skip


def _columns(names: list[str], shares: int) -> list[Column]:
    whole = Column(MEAN, f"Mean of {shares}, %", mean(100, 1), f"Mean of {shares}, %")
    return [
        Column("series", "Method", said, "Method", short(28)),
        Column("strength", "Strength", number("g"), "Strength"),
        Column("seeds", "Seeds", brief="Seeds"),
        *(Column(name, heading(name), _form(name), heading(name)) for name in names),
        *([whole] if shares > 1 else []),
        STATUS,
    ]


def _form(field: str) -> Form:
    return mean(100, 1) if is_share(field.removeprefix(HEAD)) else mean(1, 3)
