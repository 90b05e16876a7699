"""Harmful response rates against the share of harmful rows, a row for each method at a strength."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from raycib.report.cards.effects import outcomes
from raycib.report.forms import interval, mean, number
from raycib.report.frame import NAMES
from raycib.report.poisoned.worst_case import worst_case
from raycib.report.side_by_side import numbered
from raycib.report.statistics import less
from raycib.report.table import Column
from raycib.report.variants import COHERENT, ResultRow, means, row_of
from raycib.results import Samples

AT = "hrr_at_"
"""Begins the fields of a rate at a share of harmful rows."""


def poisoned_table(frame: pd.DataFrame, samples: Samples) -> pd.DataFrame:
    """A row for each label and strength of each model and task; rates are in [0, 1].

    ``hrr_at_<ratio>_mean`` and ``_std`` are over seeds. ``worst`` is the largest of these means,
    ``worst_low`` and ``worst_high`` the ends of an interval for the largest true rate, and
    ``worst_at`` the ratio that it is at; nan where some share has no finished cell.
    """
    rows, shares = [], frame["harmful_ratio"].nunique()
    for (model, task), part in frame.groupby(["model", "without_harmful"], sort=False):
        for (label, strength), cells in part.groupby(["label", "strength"], sort=False):
            by_ratio = {float(ratio): row_of(one) for ratio, one in cells.groupby("harmful_ratio")}
            first = cells.iloc[0]
            place = {"model": model, "task": task, "label": label, "strength": strength}
            place |= {name: first[name] for name in ("method", "safety_data")}
            found = {ratio: row for ratio, row in by_ratio.items() if len(row.done)}
            if found:
                rows.append(place | _numbers(found, samples, shares))
    return pd.DataFrame(rows)


def _numbers(by_ratio: dict[float, ResultRow], samples: Samples, shares: int) -> dict[str, Any]:
    numbers: dict[str, Any] = {"seeds": min(len(row.done) for row in by_ratio.values())}
    for ratio, row in by_ratio.items():
        spread = row.spread("hrr")
        numbers |= {f"{AT}{ratio:g}_mean": spread.mean, f"{AT}{ratio:g}_std": spread.std}
    every = [_outcomes(row, samples) for row in by_ratio.values()]
    place, worst = worst_case(every if len(every) == shares else [])
    numbers |= {"worst": worst.value, "worst_low": worst.low, "worst_high": worst.high}
    where = list(by_ratio)[place] if math.isfinite(worst.value) else math.nan
    numbers |= {"prompts": worst.n, "worst_at": where}
    babbled = [row.mean("incoherent_rate") for row in by_ratio.values()]
    numbers["incoherent"] = max(babbled) if all(map(math.isfinite, babbled)) else math.nan
    return numbers | means(pd.concat([row.done for row in by_ratio.values()]), ["eval_loss"])


def _outcomes(row: ResultRow, samples: Samples) -> np.ndarray:
    """Whether each answer is harmful, (seeds, prompts)."""
    given = row.answers(samples)
    if not given:
        return np.full((0, 0), math.nan)
    seeds = sorted(given)
    return outcomes(given, seeds, [prompt for prompt, _ in numbered(given[seeds[0]])]).harmful


def ratios(table: pd.DataFrame) -> list[float]:
    """The shares that a table has rates at."""
    heads = [name.removeprefix(AT).removesuffix("_mean") for name in table.columns
             if name.startswith(AT) and name.endswith("_mean")]  # fmt: skip
    return sorted(map(float, heads))


def columns(table: pd.DataFrame) -> list[Column]:
    """What people see of ``poisoned_table``."""
    several = {name: table[name].nunique() > 1 for name in ("model", "task")}
    return [
        *(Column(name, name.capitalize()) for name, shown in several.items() if shown),
        Column("label", "Method"),
        Column("strength", "Strength", number("g")),
        Column("seeds", "Seeds"),
        *(
            Column(f"{AT}{ratio:g}", f"HRR at {100 * ratio:g} %", mean(100, 1))
            for ratio in ratios(table)
        ),
        Column("worst", "Worst, %", interval(100, 1)),
        Column("worst_at", "at, %", number("g", 100)),
        Column("incoherent", "Incoherent, % (most)", number("z.1f", 100)),
        Column("eval_loss", "Task loss, nats", mean(1, 3)),
    ]


def said(table: pd.DataFrame) -> str:
    """Of each model and task plain LoRA at its worst, and the coherent method that is bounded
    lowest."""
    known, told = table[np.isfinite(table["worst_high"])], []
    for (model, task), rows in known.groupby(["model", "task"], sort=False):
        lora = rows[rows["label"] == NAMES["lora"]]
        low = _coherent(rows).sort_values("worst_high").iloc[0]
        bounds = {NAMES["lora"]: lora["worst_high"].min()} if len(lora) else {}
        bounds[f"lowest bound: {low['label']} {low['strength']:g}"] = low["worst_high"]
        place = f"{model}, {task}: " * (len(table[["model", "task"]].drop_duplicates()) > 1)
        told.append(place + "; ".join(f"{k} at most {100 * v:z.1f} %" for k, v in bounds.items()))
    return "worst over shares of harmful rows: " + "; ".join(told) if told else ""


def best_of_each(table: pd.DataFrame) -> Sequence[pd.Series]:
    """Of every label the row whose worst rate is lowest, among the coherent ones if there are."""
    found = []
    for _, rows in table.groupby(["model", "task", "label"], sort=False):
        found.append(_coherent(rows).sort_values("worst").iloc[0])
    return found


def _coherent(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that babble in at most 10 % of their answers; all, where none does."""
    kept = rows[[not less(COHERENT, one) for one in rows["incoherent"]]]
    return kept if len(kept) else rows
