"""Correlations of the harmful response rate with I(Z;C), within series and pooled."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from raycib.report.forms import Row, number, p_value, said
from raycib.report.frame import strength_series
from raycib.report.statistics import pearson, spearman
from raycib.report.table import Column

MEASURES = {
    "mutual_information": "I(Z;C)",
    "mutual_information_last_prompt": "I(Z;C), last prompt token",
}
ABOVE, FROM = "λ\u00a0>\u00a00", "λ\u00a0≥\u00a00"
NUMBERS = ("r", "low", "high", "p_exact", "p_t")
FIELDS = ["measure", "series", "span", "group", "n", *NUMBERS, "rho"]
FIELDS += [f"rho_{name}" for name in NUMBERS[1:]]


POOLED = ("pooled over seeds", "all series")
"""Groups that mix seeds or series, and are no evidence for a relation within one."""
Part = tuple[str, str, str, str, pd.DataFrame]
"""Column of a measure, series, span, group, and the cells."""


def correlation_table(frame: pd.DataFrame) -> pd.DataFrame:
    """HRR against both variants of I(Z;C): by seed, and where there are several, over seed means
    and pooled. What has fewer than three points has no row: two lie on a line.

    A row has ``n`` and Pearson's ``r`` with its interval and p values, and those of Spearman's
    rho as ``rho``, ``rho_low`` and so on.
    """
    rows = [_row(*part) for part in _parts(frame)]
    return pd.DataFrame([row for row in rows if row["n"] > 2], columns=FIELDS)


def by_series(frame: pd.DataFrame) -> dict[str, float | None]:
    """What ``correlation_table`` has of the means over seeds (of a single seed: its own), by names
    such as "mutual_information/CIB/above 0/r"."""
    spans, found = {ABOVE: "above 0", FROM: "from 0"}, {}
    # The means come last of the groups of a series and span.
    whole = {part[:3]: part for part in _parts(frame) if part[3] not in POOLED}
    for (column, series, span), part in whole.items():
        row = _row(*part)
        names = ("n", *NUMBERS, "rho") if row["n"] > 2 else ()
        found |= {f"{column}/{series}/{spans[span]}/{name}": row[name] for name in names}
    return found


def _parts(frame: pd.DataFrame) -> Iterator[Part]:
    needed = ["seed", "strength", *MEASURES, "hrr"]  # of a hundred columns
    responses = [(name, cells[needed]) for name, cells in strength_series(frame)]
    for column in MEASURES:
        for name, cells in responses:
            spans = {ABOVE: cells[cells["strength"] > 0]}
            spans |= {FROM: cells} if (cells["strength"] == 0).any() else {}
            for span, part in spans.items():
                groups = {f"seed {seed}": one for seed, one in part.groupby("seed")}
                if len(groups) > 1:
                    groups[POOLED[0]] = part
                    groups["seed means"] = part.groupby("strength")[[column, "hrr"]].mean()
                yield from ((column, name, span, group, one) for group, one in groups.items())
        if len(responses) > 1:
            every = pd.concat([cells[cells["strength"] > 0] for _, cells in responses])
            yield column, "pooled", ABOVE, POOLED[1], every


def _row(column: str, series: str, span: str, group: str, part: pd.DataFrame) -> dict[str, Any]:
    r, rho = (vars(measure(part[column], part["hrr"])) for measure in (pearson, spearman))
    place = {"measure": MEASURES[column], "series": series, "span": span, "group": group}
    place |= {"n": r["n"], "rho": rho["r"]} | {f"rho_{name}": rho[name] for name in NUMBERS[1:]}
    return place | {name: r[name] for name in NUMBERS}


def _ends(row: Row, field: str) -> str:
    low, high = (number("+z.2f")(row, f"{field}low"), number("+z.2f")(row, f"{field}high"))
    return f"[{low}, {high}]" if low and high else ""


COLUMNS = (
    Column("measure", "Measure"),
    Column("series", "Series"),
    Column("span", "Over"),
    Column("group", "Group"),
    Column("n", "n", said),
    Column("r", "r", number("+z.3f")),
    Column("", "95 % of r", _ends),
    Column("p_exact", "exact p", p_value),
    Column("p_t", "t p", p_value),
    Column("rho", "ρ", number("+z.3f")),
    Column("rho_", "95 % of ρ", _ends),
    Column("rho_p_exact", "exact p of ρ", p_value),
)
"""What people see of ``correlation_table``."""
