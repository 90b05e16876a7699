"""The paper's Table 3 for any sweep with strengths."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from raycib.report.cells import MEASURES
from raycib.report.forms import BEFORE, number, of_prompts
from raycib.report.frame import PLAIN
from raycib.report.table import STATUS, Column
from raycib.report.variants import before_row, hrr_ends, means, result_rows, row_of

NAMES = [column.field for column in MEASURES]


def table3(frame: pd.DataFrame, aligned: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Mean and sample standard deviation (ddof = 1) over seeds at each strength.

    The first row is the model before fine-tuning (``aligned``: flat scores). ``<column>_mean`` is
    in the unit of ``frame``; ``<column>_std`` is nan for a single seed; ``seeds`` counts the cells
    behind a row. ``hrr_low`` and ``hrr_high`` are Wilson's ends at the mean for ``hrr_n`` prompts.
    A cell that failed has a row of its own whose ``status`` says why.
    """
    rows: list[dict[str, Any]] = []
    names = sorted(set(frame["model"].dropna().astype(str)))
    if aligned:
        place = {"model": " ".join(names), "method": BEFORE, "strength": math.nan}
        rows.append(before_row(aligned, NAMES) | hrr_ends(pd.DataFrame([aligned])) | place)
    series = frame.assign(_plain=frame["method"] != PLAIN)
    keys = ["model", "_plain", "series", "strength"]
    for (model, _, label, strength), cells in series.groupby(keys, sort=True):
        found = row_of(cells)
        place = {"model": model, "method": label, "strength": strength}
        rows += result_rows(found, lambda done: means(done, NAMES) | hrr_ends(done), **place)
    columns = ["model", "method", "strength", "seeds"]
    for name in NAMES:
        columns += [f"{name}_mean", f"{name}_std"]
        columns += ["hrr_low", "hrr_high", "hrr_n"] * (name == "hrr")
    return pd.DataFrame(rows, columns=[*columns, "status"])


def columns(table: pd.DataFrame) -> list[Column]:
    """What people see of ``table3``."""
    several = table["model"].nunique() > 1
    place = 1 + NAMES.index("hrr")
    return [
        *([Column("model", "Model")] if several else ()),
        Column("method", "Method"),
        Column("strength", "λ", number("g")),
        Column("seeds", "Seeds"),
        *MEASURES[:place],
        Column("hrr", "95 % of HRR", of_prompts, optional=True),
        *MEASURES[place:],
        STATUS,
    ]
