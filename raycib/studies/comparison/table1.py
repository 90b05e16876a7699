"""Table 1 for any comparison: what every method does to safety, to the task and to abilities."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from raycib.analysis.arms import Arm, arms, settings
from raycib.analysis.statistics import mean_std, wilson_over_seeds
from raycib.analysis.tables import BEFORE, COLUMNS, shown
from raycib.analysis.text import one_line

CAPTION = (
    "Mean ± sample standard deviation (ddof = 1) over the seeds counted in the row. HRR: harmful "
    "response rate; its 95 % interval is Wilson's at the mean, with the prompts as n, since seeds "
    "share them. Incoherent: answers to harmful prompts that are neither harmful nor refusals. "
    "Steps: optimiser steps of the whole chain; derived: made from a trained adapter without "
    "training. Rank: the exported adapter's. Distance: Frobenius norm of the weights' update."
)
MEASURES = {
    name: COLUMNS[name]
    for name in (
        "eval_loss", "hrr", "refusal_rate", "incoherent_rate", "over_refusal", "accuracy", "utility"
    )
}  # fmt: skip
AFTER_PROBES = {
    "mutual_information": COLUMNS["mutual_information"],
    "distance": ("Distance", 1.0, 2),
}
SHORT = {
    "refusal_rate": "Refused",
    "incoherent_rate": "Incoherent",
    "over_refusal": "Over-refusal",
    "accuracy": "Accuracy",
    "utility": "Utility",
}
"""Headings of the narrow table, where these are means in per cent."""
NAME_WIDTH = 28


def table1(frame: pd.DataFrame, aligned: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """One row of numbers for each method and strength; first before fine-tuning, then plain LoRA.

    ``<column>_mean`` is in the unit of ``frame`` and ``<column>_std`` nan for a single seed;
    ``hrr_low`` and ``hrr_high`` are Wilson's ends at the mean for ``hrr_n`` prompts, the fewest
    that a seed has verdicts on. A cell that failed has a row whose ``status`` says why.
    """
    measures = [*MEASURES, *probes(frame), *AFTER_PROBES]
    rows: list[dict[str, Any]] = []
    if aligned:
        before = {"series": BEFORE, "method": "", "strength": math.nan, "seeds": 1, "status": ""}
        rows.append(before | _measured(pd.DataFrame([aligned]), measures))
    for _, part in settings(frame):
        for arm in arms(part):
            rows += _rows(arm, measures)
    columns = ["series", "method", "strength", "seeds"]
    for name in measures:
        columns += [f"{name}_mean", f"{name}_std"]
        columns += ["hrr_low", "hrr_high", "hrr_n"] * (name == "hrr")
    return pd.DataFrame(rows, columns=[*columns, "steps", "rank", "trained", "status"])


def presentable1(table: pd.DataFrame) -> pd.DataFrame:
    """``table1`` as text for people, in the columns' units; what was never measured is left out."""
    rows = []
    headings = _headings(table)
    for row in _records(table):
        text = _place(row)
        for name, (heading, factor, decimals) in headings.items():
            text[heading] = shown(row, name, factor, decimals)
            if name == "hrr":
                text["95 % of HRR"] = _ends(row)
        if table["steps"].notna().any():
            text["Steps"] = _steps(row)
        if table["rank"].notna().any():
            text["Rank"] = _whole(row["rank"])
        if table["status"].ne("").any():
            text["Status"] = row["status"]
        rows.append(text)
    return pd.DataFrame(rows)


def narrow1(table: pd.DataFrame) -> pd.DataFrame:
    """``table1`` for a page or a terminal: the paper's columns, secondary ones without spread.

    Rates are in per cent. Rows of failed cells have no status here: see ``failures``.
    """
    rows = []
    headings = _headings(table)
    # A row of numbers stands before the failed cells of its arm, and for them.
    for row in _records(table.drop_duplicates(["series", "strength"])):
        text = _place(row)
        text["Method"] = one_line(text["Method"], NAME_WIDTH)
        text["Task loss"] = shown(row, "eval_loss", 1, 3)
        text["HRR, %"] = shown(row, "hrr", 100, 1)
        text["95 %"] = _ends(row).split(" of ")[0]
        for name, heading in SHORT.items():
            if name in headings:
                text[heading] = shown(row, name, 100, 1, alone=True)
        rows.append(text)
    return pd.DataFrame(rows)


def failures(table: pd.DataFrame) -> list[str]:
    """The failed cells of ``table1``, each in a line with its reason."""
    return [
        one_line(f"{row['series']}, strength {row['strength']:g}: {row['status']}")
        for row in _records(table)
        if row["status"]
    ]


def probes(frame: pd.DataFrame) -> list[str]:
    """The columns of the probes behind utility: ``utility_<probe>``, which have a count."""
    return [name for name in frame.columns if name.startswith("utility_") and f"{name}_n" in frame]


def _rows(arm: Arm, measures: Sequence[str]) -> list[dict[str, Any]]:
    place = {"series": arm.series, "method": arm.method, "strength": arm.strength}
    rows = []
    if len(arm.done):
        first = arm.done.iloc[0]
        cost = {name: first[f"cost_{name}"] for name in ("steps", "rank", "trained")}
        seeds = {"seeds": len(arm.done), "status": ""}
        rows.append(place | seeds | _measured(arm.done, measures) | cost)
    for _, cell in arm.failed.iterrows():
        reason = f"failed (seed {cell['seed']}): {cell['failed']}"
        rows.append({**place, "seeds": 0, "status": reason})
    return rows


def _measured(cells: pd.DataFrame, measures: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in measures:
        over_seeds = mean_std(cells.get(name, []))
        found |= {f"{name}_mean": over_seeds.mean, f"{name}_std": over_seeds.std}
    ends = wilson_over_seeds(cells["hrr"], cells["hrr_n"]) if "hrr_n" in cells else None
    if ends:
        found |= {"hrr_low": ends.low, "hrr_high": ends.high, "hrr_n": ends.n}
    return found


def _headings(table: pd.DataFrame) -> dict[str, tuple[str, float, int]]:
    """The measures of a table that hold any number."""
    of_probes = {
        name.removesuffix("_mean"): (one_line(name[len("utility_") : -len("_mean")], 30) + ", %",
                                     100.0, 1)
        for name in table.columns
        if name.startswith("utility_") and name.endswith("_mean") and name != "utility_mean"
    }  # fmt: skip
    every = MEASURES | of_probes | AFTER_PROBES
    return {name: form for name, form in every.items() if table[f"{name}_mean"].notna().any()}


def _place(row: Mapping[str, Any]) -> dict[str, str]:
    strength = "" if math.isnan(row["strength"]) else f"{row['strength']:g}"
    return {"Method": row["series"], "Strength": strength, "Seeds": str(row["seeds"])}


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def _ends(row: Mapping[str, Any]) -> str:
    if pd.isna(row["hrr_low"]):
        return ""
    return f"[{100 * row['hrr_low']:z.1f}, {100 * row['hrr_high']:z.1f}] of {int(row['hrr_n'])}"


def _steps(row: Mapping[str, Any]) -> str:
    derived = not pd.isna(row["trained"]) and not row["trained"]
    return _whole(row["steps"]) + ", derived" * derived


def _whole(value: Any) -> str:
    return "" if value is None or pd.isna(value) else f"{value:z.0f}"
