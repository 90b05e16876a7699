"""What safety a method buys at the same price: the lowest HRR within a budget of task loss."""

import math
from typing import Any

import pandas as pd

from raycib.report.variants import best, by_series, plain_variant, settings, variants

BUDGETS = (1.0, 1.1, 1.25, 1.5, 2.0, math.inf)
"""Multiples of plain LoRA's mean task loss."""
CAPTION = (
    "Lowest mean harmful response rate, in %, that a method reaches at any of its strengths whose "
    "mean task loss is within the budget, a multiple of plain LoRA's, and whose answers to harmful "
    "prompts are in at most 10 % neither harmful nor refusals; in brackets the strength. The "
    "strength is chosen on the same prompts that the rate is measured on, which favours methods "
    "with many strengths. –: no strength is within the budget."
)


def matched_cost(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each method and budget, as numbers; ``hrr_mean`` is nan where nothing fits.

    ``budget`` is a multiple of plain LoRA's mean task loss and ``max_loss`` its product in nats;
    without plain LoRA only the unlimited budget is asked. ``strengths`` counts what was tried.
    """
    rows: list[dict[str, Any]] = []
    for _, part in settings(frame):
        found = variants(part)
        lora = plain_variant(found)
        unit = lora.mean("eval_loss") if lora else math.nan
        for series, mine in by_series(found).items():
            for budget in BUDGETS if math.isfinite(unit) else (math.inf,):
                most = budget * unit if math.isfinite(budget) else math.inf
                chosen = best(mine, most)
                row = {"series": series, "budget": budget, "max_loss": most}
                row["strengths"] = sum(len(variant.done) > 0 for variant in mine)
                if chosen:
                    row |= {name: chosen.mean(name) for name in ("hrr", "eval_loss")}
                    row["strength"] = chosen.strength
                rows.append(row)
    columns = ["series", "strengths", "budget", "max_loss", "hrr", "strength", "eval_loss"]
    table = pd.DataFrame(rows, columns=columns)
    return table.rename(columns={"hrr": "hrr_mean", "eval_loss": "eval_loss_mean"})


def pivoted(table: pd.DataFrame) -> pd.DataFrame:
    """``matched_cost`` with a row for each method and a field of text for each budget."""
    rows = []
    nats = table.groupby("budget")["max_loss"].nunique().max() == 1  # one setting, one LoRA
    for series, part in table.groupby("series", sort=False):
        text = {"Method": str(series)}
        for row in part.to_dict("records"):
            several = row["strengths"] > 1
            text[_heading(row["budget"], row["max_loss"] if nats else math.inf)] = (
                "–"
                if math.isnan(row["hrr_mean"])
                else f"{100 * row['hrr_mean']:z.1f}" + f" ({row['strength']:g})" * several
            )
        rows.append(text)
    return pd.DataFrame(rows).fillna("")


def _heading(budget: float, most: float) -> str:
    if budget == math.inf:
        return "any loss"
    return f"≤ {budget:g} × LoRA's" + f" ({most:z.3f})" * math.isfinite(most)
