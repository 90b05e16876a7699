"""Harmful response rates against the share of harmful rows, a line for each method."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from raycib.report.figures import (
    COLUMN,
    DASHES,
    MARKS,
    legend_below,
    method_colors,
    new_figure,
)
from raycib.report.poisoned.table import AT, best_of_each, ratios
from raycib.report.text import one_line


def poisoned_figure(table: pd.DataFrame) -> Figure | None:
    """A panel for each model and task: means over seeds, with the bound on the worst case at the
    right. None where there is but one share."""
    shares = ratios(table)
    if len(shares) < 2:
        return None
    places = list(dict.fromkeys(zip(table["model"], table["task"], strict=True)))
    colors = method_colors(table["method"])
    lines = -(-table["label"].nunique() // 2)
    with new_figure(COLUMN, (2.1 + 0.13 * lines) * len(places)) as figure:
        panels = figure.subplots(len(places), 1, squeeze=False)[:, 0]
        for panel, (model, task) in zip(panels, places, strict=True):
            mine = table[(table["model"] == model) & (table["task"] == task)]
            rows = best_of_each(mine)
            for number, row in enumerate(rows):
                rates = [row.get(f"{AT}{share:g}_mean", np.nan) for share in shares]
                label = f"{one_line(row['label'], 26)} {row['strength']:g}".removesuffix(" 0")
                color, mark = colors[row["method"]], MARKS[number % len(MARKS)]
                panel.plot(
                    range(len(shares)), rates, color=color, marker=mark,
                    ls=DASHES if row["safety_data"] else "-", label=label,
                )  # fmt: skip
                beside = len(shares) - 0.6 + 0.5 * (number + 1) / (len(rows) + 1)
                panel.vlines(beside, row["worst_low"], row["worst_high"], color=color, lw=1)
                panel.plot([beside], [row["worst"]], mark, color=color, ms=4)
            panel.axvline(len(shares) - 0.7, color="#cccccc", lw=0.8)
            names = [f"{100 * share:g} %" for share in shares]
            panel.set_xticks([*range(len(shares)), len(shares) - 0.35], [*names, "worst"])
            panel.set_xlim(-0.2, len(shares))
            panel.set_ylim(bottom=0)
            panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            panel.set(xlabel="Share of harmful rows", ylabel="Harmful response rate")
            if len(places) > 1:
                panel.set_title(one_line(f"{model}, {task}", 60))
            legend_below(panel, panel.get_legend_handles_labels()[0])
        return figure
