"""The paper's Table 3 for any sweep with strengths."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from raycib.analysis.frame import PLAIN
from raycib.analysis.statistics import mean_std
from raycib.analysis.tables import BEFORE, COLUMNS, shown


def table3(frame: pd.DataFrame, aligned: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Mean and sample standard deviation (ddof = 1) over seeds at each strength.

    The first row is the model before fine-tuning (``aligned``: flat scores). ``<column>_mean`` is
    in the unit of ``frame``; ``<column>_std`` is nan for a single seed; ``seeds`` counts the cells
    behind a row. A cell that failed has a row of its own whose ``status`` says why.
    """
    rows: list[dict[str, Any]] = []
    names = sorted(set(frame["model"].dropna().astype(str)))
    if aligned:
        rows.append(
            {"model": " ".join(names), "method": BEFORE, "lam": math.nan, "seeds": 1, "status": ""}
            | _spreads(pd.DataFrame([aligned]))
        )
    series = frame.assign(_plain=frame["method"] != PLAIN)
    keys = ["model", "_plain", "series", "lam"]
    for (model, _, label, lam), cells in series.groupby(keys, sort=True):
        done, failed = cells[cells["failed"].isna()], cells[cells["failed"].notna()]
        place = {"model": model, "method": label, "lam": lam}
        if len(done):
            rows.append({**place, "seeds": len(done), "status": ""} | _spreads(done))
        for _, cell in failed.sort_values("seed").iterrows():
            reason = f"failed (seed {cell['seed']}): {cell['failed']}"
            rows.append({**place, "seeds": 0, "status": reason})
    columns = ["model", "method", "lam", "seeds"]
    columns += [name + end for name in COLUMNS for end in ("_mean", "_std")]
    return pd.DataFrame(rows, columns=[*columns, "status"])


def presentable(table: pd.DataFrame) -> pd.DataFrame:
    """``table3`` as text for people: "20.6 ± 2.5" in the column's unit, "" where not measured."""
    several = table["model"].nunique() > 1
    rows = []
    for _, row in table.iterrows():
        text = {"Model": str(row["model"])} if several else {}
        text |= {"Method": str(row["method"])}
        text |= {"λ": "" if math.isnan(row["lam"]) else f"{row['lam']:g}"}
        text |= {"Seeds": str(row["seeds"])}
        for name, (heading, factor, decimals) in COLUMNS.items():
            if table[f"{name}_mean"].notna().any():
                text[heading] = shown(row, name, factor, decimals)
        if table["status"].ne("").any():
            text["Status"] = str(row["status"])
        rows.append(text)
    return pd.DataFrame(rows)


def _spreads(cells: pd.DataFrame) -> dict[str, float]:
    found = {}
    for name in COLUMNS:
        over_seeds = mean_std(cells[name]) if name in cells else mean_std([])
        found |= {f"{name}_mean": over_seeds.mean, f"{name}_std": over_seeds.std}
    return found
