"""How a sweep was measured: what it says of its settings, its rows and its judge, as small tables.

Whoever measures adds fields to the models of ``raycib.results`` and nothing here: what stands under
the names of ``PARTS`` is each a mapping of names to values, or a list of mappings, which is a table
with a column for each name.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from raycib.report.text import one_line, plain
from raycib.results import Results

PARTS = {
    "settings": "Settings",
    "rows": "Rows",
    "training": "Tokens trained on",
    "planned": "Planned and measured",
    "benchmarks": "Benchmarks",
    "files": "Files",
    "judge": "Judge",
    "asked_alone": "Answers asked for again, each alone",
    "engine_losses": "The engine's losses beside those that training measured",
}
"""What a summary may say of how it was measured, and the headings."""
OF_THE_GRID = (
    "stages", "stages_asked", "stages_shared", "stages_failed", "cells_failed",
    "reference_forwards", "distinct_examples", "tokens_useful", "tokens_computed",
)  # fmt: skip
"""Counts that are the same however many runs a sweep took; the others are of its last run."""
RATE = {"value", "low", "high", "n"}
"""What a rate with its interval has."""
LONGEST = 400
"""Characters of one value."""


class Part(NamedTuple):
    """One small table: names with values, then tables of what comes as a list."""

    title: str
    items: list[tuple[str, str]]
    tables: list[tuple[str, pd.DataFrame]]
    """Each with its heading, which is "" where the whole part is one table."""


def measured(results: Results) -> list[Part]:
    """The parts of which ``results`` say something, in the order of ``PARTS``."""
    found, values = [], results.plain()
    for name, title in PARTS.items():
        part = Part(title, *_parted(values.get(name) or {}))
        if part.items or part.tables:
            found.append(part)
    return found


def listed(values: Mapping[str, Any], head: str = "") -> list[tuple[str, str]]:
    """Names, in words and after ``head``, with what ``said`` makes of their values; a mapping
    within ``values`` has a name for each of its own."""
    found = []
    for name, value in values.items():
        words = head + one_line(name).replace("_", " ")
        if isinstance(value, Mapping) and value.keys() >= RATE:
            found.append((words, _rate(value, "points" if name.endswith("_change") else "%")))
        elif isinstance(value, Mapping) and value:
            found += listed(value, f"{words}: ")
        else:
            found.append((words, said(value)))
    return found


def counted(results: Results) -> list[tuple[str, str]]:
    """A sweep's counts and times, each told as the grid's or the last run's."""
    counts = results.counts.plain()
    whole = {name: counts[name] for name in OF_THE_GRID if name in counts}
    last = {name: value for name, value in counts.items() if name not in whole}
    return [
        *listed(whole, "grid: "), *listed(last, "last run: "),
        *listed(results.timings_s, "last run, time in s: "),
    ]  # fmt: skip


def said(value: Any) -> str:
    """A value in words: "yes", "none", "not given", six digits of a number, a list's parts."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "not given"
    if isinstance(value, float):
        return "infinite" if math.isinf(value) else f"{value:.6g}"
    if isinstance(value, Mapping):
        return "; ".join(": ".join(pair) for pair in listed(value)) or "none"
    if isinstance(value, list | tuple):
        return one_line(", ".join(map(said, value)), LONGEST) or "none"
    return one_line(value, LONGEST)


def _rate(found: Mapping[str, Any], unit: str) -> str:
    """ "9.4 % [3.2, 24.2], n = 32"; "not given" where there is none."""
    if found["value"] is None:
        return said(None)
    value, low, high = (f"{100 * found[end]:z.1f}" for end in ("value", "low", "high"))
    return f"{value} {unit} [{low}, {high}], n = {found['n']}"


def _parted(
    values: Mapping[str, Any] | Sequence[Mapping[str, Any]],
) -> tuple[list[tuple[str, str]], list[tuple[str, pd.DataFrame]]]:
    if not isinstance(values, Mapping):
        return [], [("", _table(values))]
    rows = {name: value for name, value in values.items() if _is_table(value)}
    rest = {name: value for name, value in values.items() if name not in rows}
    heads = [one_line(name).replace("_", " ").capitalize() for name in rows]
    return listed(rest), list(zip(heads, map(_table, rows.values()), strict=True))


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Text, with a column for each name that some row has; "" where a row lacks it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pd.DataFrame(
        [[said(row[name]) if name in row else "" for name in names] for row in rows],
        columns=[plain(name).replace("_", " ").capitalize() for name in names],
    )
