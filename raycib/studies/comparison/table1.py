"""Table 1 for any comparison: what every method does to safety, to the task and to abilities."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from raycib.report.cells import MEASURES
from raycib.report.forms import Row, ends, mean, number, of_prompts, said, short
from raycib.report.table import STATUS, Column
from raycib.report.text import one_line
from raycib.report.variants import before_row, hrr_ends, means, result_rows, settings, variants

CAPTION = (
    "Mean ± sample standard deviation (ddof = 1) over the seeds counted in the row. HRR: harmful "
    "response rate; its 95 % interval is Wilson's at the mean, with the prompts as n, since seeds "
    "share them: it says nothing of other seeds. Incoherent: answers to harmful prompts that are "
    "neither harmful nor refusals. "
    "Steps: optimiser steps of the whole chain; derived: made from a trained adapter without "
    "training. Rank: the exported adapter's. Distance: Frobenius norm of the weights' update."
)
BY_NAME = {column.field: column for column in MEASURES}
FIRST = (
    "eval_loss", "hrr", "refusal_rate", "incoherent_rate", "over_refusal", "accuracy", "utility"
)  # fmt: skip
LAST = ("mutual_information", "distance")
BRIEF = {
    "refusal_rate": "Refused", "incoherent_rate": "Incoherent", "over_refusal": "Over-refusal",
    "accuracy": "Accuracy", "utility": "Utility",
}  # fmt: skip
"""Heads of the brief form, where these are means in per cent."""
COST = ("steps", "rank", "trained")
NAME_WIDTH = 28


def table1(frame: pd.DataFrame, aligned: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """One row of numbers for each method and strength; first before fine-tuning, then plain LoRA.

    ``<column>_mean`` is in the unit of ``frame`` and ``<column>_std`` nan for a single seed;
    ``hrr_low`` and ``hrr_high`` are Wilson's ends at the mean for ``hrr_n`` prompts, the fewest
    that a seed has verdicts on. A cell that failed has a row whose ``status`` says why.
    """
    names = [*FIRST, *probes(frame), *LAST]

    def numbers(cells: pd.DataFrame) -> dict[str, Any]:
        costs = {name: cells[f"cost_{name}"].iloc[0] for name in COST}
        return means(cells, names) | hrr_ends(cells) | costs

    rows: list[dict[str, Any]] = []
    if aligned:
        rows.append(before_row(aligned, names) | hrr_ends(pd.DataFrame([aligned])))
    for _, part in settings(frame):
        for variant in variants(part):
            rows += result_rows(variant, numbers)
    fields = ["series", "method", "strength", "seeds"]
    for name in names:
        fields += [f"{name}_mean", f"{name}_std"]
        fields += ["hrr_low", "hrr_high", "hrr_n"] * (name == "hrr")
    return pd.DataFrame(rows, columns=[*fields, *COST, "status"])


def columns(table: pd.DataFrame) -> list[Column]:
    """What people see of ``table1``: rates in per cent; the brief form has the paper's columns,
    secondary ones without spread."""
    loss, hrr, *rates = (BY_NAME[name] for name in FIRST)
    of_probes = [
        Column(name, one_line(name.removeprefix("utility_"), 30) + ", %", mean(100, 1),
               optional=True)
        for name in (field.removesuffix("_mean") for field in table if field.endswith("_mean"))
        if name.startswith("utility_")
    ]  # fmt: skip
    return [
        Column("series", "Method", brief="Method", brief_form=short(NAME_WIDTH)),
        Column("strength", "Strength", number("g"), brief="Strength"),
        Column("seeds", "Seeds", brief="Seeds"),
        replace(loss, brief="Task loss"),
        replace(hrr, brief="HRR, %"),
        Column(
            "hrr", "95 % of HRR", of_prompts, brief="95 %", brief_form=ends(100, 1), optional=True
        ),
        *(
            replace(rate, brief=BRIEF[rate.field], brief_form=mean(100, 1, around=""))
            for rate in rates
        ),
        *of_probes,
        BY_NAME["mutual_information"],
        Column("distance", "Distance", mean(1, 2), optional=True),
        Column("steps", "Steps", _steps, optional=True),
        Column("rank", "Rank", number("z.0f"), optional=True),
        STATUS,
    ]


def probes(frame: pd.DataFrame) -> list[str]:
    """The columns of the probes behind utility: ``utility_<probe>``, which have a count."""
    return [name for name in frame.columns if name.startswith("utility_") and f"{name}_n" in frame]


def _steps(row: Row, field: str) -> str:
    derived = said(row, "trained") and not row["trained"]
    return number("z.0f")(row, field) + ", derived" * bool(derived)
