"""Every cell of a sweep in a row, and the measures that any sweep may have."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from raycib.metrics import FURTHER_METRICS, METRICS
from raycib.report.benchmarks import cell_columns
from raycib.report.forms import BEFORE, BEFORE_ALIGNMENT, NOT_MEASURED, Row, mean, number, rate
from raycib.report.table import STATUS, Column, shown

MEASURES = tuple(
    Column(name, one.heading, mean(one.factor, one.decimals), optional=True)
    for name, one in METRICS.items()
)
"""Each measure in the mean over seeds, in the order of Table 3."""
ELSEWHERE = "hrr_on_"
"""Begins the column of a rate on further harmful prompts."""


def cells_table(
    frame: pd.DataFrame,
    aligned: Mapping[str, Any] | None = None,
    strength: str = "Strength",
    unaligned: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """One row of text for each cell: rates with Wilson's 95 % interval, n and unread verdicts.

    ``strength`` is the heading of the methods' strengths. ``unaligned`` are the scores of the base,
    where it was aligned first.
    """
    rows = frame.assign(status=[f"failed: {why}" if why else "" for why in frame["failed"]])
    for key, name, scores in (
        ("aligned", BEFORE, aligned),
        ("base", BEFORE_ALIGNMENT, unaligned),
    ):
        if scores:
            before = {"key": key, "series": name, "seed": None, "status": ""} | dict(scores)
            rows = pd.concat([pd.DataFrame([before]), rows.astype(object)])
    return shown(rows, [
        Column("key", "Cell", lambda row, field: row[field][:12]),
        Column("series", "Method"),
        Column("strength", strength, number("g")),
        Column("seed", "Seed"),
        *(Column(name, one.heading, _rate) for name, one in METRICS.items() if one.counted),
        *(Column(name, one.heading, rate, optional=True) for name, one in FURTHER_METRICS.items()),
        *(Column(name, f"HRR on {name.removeprefix(ELSEWHERE)}, %", rate)
          for name in rows if name.startswith(ELSEWHERE) and f"{name}_low" in rows),
        *cell_columns(rows),
        Column("hrr_unread", "Unread", number(".0f")),
        Column("cosine", "cos(z, z ref)", number("z.2f")),
        Column("negative_cosine", "Mean negative cos", number("z.2f")),
        STATUS,
    ])  # fmt: skip


def _rate(row: Row, field: str) -> str:
    return rate(row, field) or ("" if row["status"] else NOT_MEASURED)
