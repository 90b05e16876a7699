"""Correlations of the harmful response rate with I(Z;C), within series and pooled."""

import pandas as pd

from raycib.report.forms import Row, number, p_value, said
from raycib.report.frame import dose_responses
from raycib.report.statistics import correlations
from raycib.report.table import Column
from raycib.studies.strength.claims import LAST_PROMPT

PLACE = ["measure", "series", "span", "group"]
NUMBERS = ["r", "low", "high", "p_exact", "p_t"]


def correlation_table(frame: pd.DataFrame) -> pd.DataFrame:
    """HRR against both variants of I(Z;C): by seed, and where there are several, over seed means
    and pooled. What has fewer than three points has no row: two lie on a line.

    A row has ``n`` and Pearson's ``r`` with its interval and p values, and those of Spearman's
    rho as ``rho``, ``rho_low`` and so on.
    """
    rows = []
    measures = {"mutual_information": "I(Z;C)", LAST_PROMPT: "I(Z;C), last prompt token"}
    responses = list(dose_responses(frame))
    for column, label in measures.items():
        pooled = [cells[cells["lam"] > 0].assign(_series=name) for name, cells in responses]
        for name, cells in responses:
            for span, part in (
                ("λ\u00a0>\u00a00", cells[cells["lam"] > 0]),
                ("λ\u00a0≥\u00a00", cells),
            ):
                if "≥" in span and not (cells["lam"] == 0).any():
                    continue
                found = correlations(part, column, "hrr", "seed")
                found["group"] = ["pooled over seeds" if g == "pooled" else f"seed {g}"
                                  for g in found["group"]]  # fmt: skip
                if part["seed"].nunique() == 1:
                    found = found[found["group"] != "pooled over seeds"]
                else:
                    means = part.groupby("lam")[[column, "hrr"]].mean().assign(all="seed means")
                    found = pd.concat([found, correlations(means, column, "hrr", "all")])
                rows.append(found.assign(measure=label, series=name, span=span))
        if len(responses) > 1:
            both = correlations(pd.concat(pooled).assign(all="all series"), column, "hrr", "all")
            rows.append(both.assign(measure=label, series="pooled", span="λ\u00a0>\u00a00"))
    if not rows:
        return pd.DataFrame(columns=[*PLACE, "n", *NUMBERS])
    table = pd.concat(rows)
    table = table[table["n"] > 2]
    p, rho = (table[table["kind"] == kind].set_index(PLACE) for kind in ("pearson", "spearman"))
    names = {"r": "rho"} | {name: f"rho_{name}" for name in NUMBERS[1:]}
    return p[["n", *NUMBERS]].join(rho[NUMBERS].rename(columns=names)).reset_index()


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
