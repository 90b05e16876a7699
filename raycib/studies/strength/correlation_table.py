"""Correlations of the harmful response rate with I(Z;C), within series and pooled."""

from typing import Any

import pandas as pd

from raycib.analysis.frame import dose_responses
from raycib.analysis.statistics import correlations
from raycib.studies.strength.claims import LAST_PROMPT


def correlation_table(frame: pd.DataFrame) -> pd.DataFrame:
    """HRR against both variants of I(Z;C): by seed, over seed means, and pooled; as text."""
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
                means = part.groupby("lam")[[column, "hrr"]].mean().assign(all="seed means")
                both = pd.concat([found, correlations(means, column, "hrr", "all")])
                rows.append(both.assign(measure=label, series=name, span=span))
        if len(responses) > 1:
            both = correlations(pd.concat(pooled).assign(all="all series"), column, "hrr", "all")
            rows.append(both.assign(measure=label, series="pooled", span="λ\u00a0>\u00a00"))
    if not rows:
        return pd.DataFrame({"Correlation": ["no strengths to compare"]})
    table = pd.concat(rows)
    table = table[table["n"] > 0]
    places = ["measure", "series", "span", "group"]
    p, rho = (table[table["kind"] == kind].set_index(places) for kind in ("pearson", "spearman"))
    shown = pd.DataFrame(
        {
            "n": p["n"].astype(str),
            "r": [_number(r, "+z.3f") for r in p["r"]],
            "95 % of r": [_ends(*ends) for ends in zip(p["low"], p["high"], strict=True)],
            "exact p": [_p(value) for value in p["p_exact"]],
            "t p": [_p(value) for value in p["p_t"]],
            "ρ": [_number(r, "+z.3f") for r in rho["r"]],
            "95 % of ρ": [_ends(*ends) for ends in zip(rho["low"], rho["high"], strict=True)],
            "exact p of ρ": [_p(value) for value in rho["p_exact"]],
        },
        index=p.index,
    ).reset_index()
    names = {"measure": "Measure", "series": "Series", "span": "Over", "group": "Group"}
    return shown.rename(columns=names)


def _ends(low: float, high: float) -> str:
    return "" if pd.isna(low) or pd.isna(high) else f"[{low:+z.2f}, {high:+z.2f}]"


def _p(value: float | None) -> str:
    if value is None or pd.isna(value):
        return ""
    return "<\u00a00.0001" if value < 0.0001 else f"{value:z.4f}"


def _number(value: Any, form: str) -> str:
    return "" if value is None or pd.isna(value) else format(value, form)
