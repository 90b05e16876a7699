"""Whether the theorems' bounds hold in a sweep, and whether the alignment tax is negligible."""

import math

import pandas as pd

from raycib.counting import count
from raycib.report.claims import Claim, all_told
from raycib.studies.tradeoff.bounds import THEOREMS, amount, summary_table
from raycib.studies.tradeoff.terms import tax_table

NEGLIGIBLE = 0.05
"""Share of the label's entropy below which I(Y;C) counts as negligible."""
LOWER = {
    "3": "its slope is the largest found, so that a failure may be the slope's",
    "4, as stated": "its curvature is the largest found and its step may leave the ball",
    "4, corrected": "its curvature is the largest found, so that a failure may be the curvature's",
}
"""What a theorem's constants cannot promise."""


def bound_claims(table: pd.DataFrame) -> list[Claim]:
    """A claim for each theorem in a table of ``bounds``.

    Rule: it fails if it fails in one cell, and holds if it holds in every cell that has a bound.
    """
    found = []
    for row in summary_table(table).to_dict("records"):
        theorem = str(row["theorem"])
        text = (
            f"{THEOREMS[theorem]}: in every cell that has a bound, the gap's 95 % interval lies "
            "below it"
        ) + (f" ({LOWER[theorem]})" if theorem in LOWER else "")
        part = table[(table["theorem"] == theorem) & table["bound"].notna()]
        told = [value if isinstance(value, bool) else None for value in part["holds"]]
        evidence = f"holds in {row['holds']} of {count(len(part), 'cell')}, fails in {row['fails']}"
        if row["no_bound"]:
            evidence += f"; no bound in {row['no_bound']} more"
        if not math.isnan(row["ratio_median"]):
            evidence += (
                f"; bound / gap {amount(row['ratio_median'])} at the median, from "
                f"{amount(row['ratio_min'])} to {amount(row['ratio_max'])}"
            )
        if not math.isnan(row["slack_min"]):
            evidence += f"; smallest slack {amount(row['slack_min'])} nats"
        found.append(Claim(text, all_told(told), evidence))
    return found


def tax_claims(frame: pd.DataFrame) -> list[Claim]:
    """That the tax is negligible, as the CIB paper has it; none where not measured. Proposition 1
    itself is the chain rule of information: the estimates obey it, so nothing can be judged."""
    table = tax_table(frame)
    if not len(table):
        return []
    shares = table["share"].astype(float).dropna()
    if not len(shares):
        return []
    evidence = (
        f"I(Y;C) is {100 * shares.min():z.1f} to {100 * shares.max():z.1f} % of H(Y) (at most "
        f"{table['label_entropy'].max():z.3f} nats); largest tax {table['tax'].max():z.4f} nats"
    )
    text = (
        "The alignment tax is negligible: in every row I(Y;C) is below 5 % of H(Y) (as far as "
        "linear probes find it, so that there may be more)"
    )
    return [Claim(text, bool(shares.max() < NEGLIGIBLE), evidence)]
