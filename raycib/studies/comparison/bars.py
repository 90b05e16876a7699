"""The CIB paper's Figure 3 for any ablation: harmful response rates, row by row."""

import math
from functools import partial
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from raycib.report.figures import COLUMN, GREY, new_figure, say_nothing, shades_of
from raycib.report.statistics import Interval, wilson_over_seeds
from raycib.report.text import one_line
from raycib.report.variants import ResultRow, settings, variants


def bars(frame: pd.DataFrame, before: float | None = None) -> Figure:
    """One bar for each variant, in the order given: the mean HRR over seeds (dots), with Wilson's
    95 % interval at the mean for the number of prompts. ``before`` is the HRR before
    fine-tuning."""
    found = [variant for _, part in settings(frame) for variant in variants(part)]
    shown = [variant for variant in found if math.isfinite(variant.mean("hrr"))]
    colors = shades_of(variant.method for variant in shown)
    names = [fill(one_line(variant.name, 44), 23) for variant in shown]
    rows = max(len(shown), 1) + 0.3 * sum("\n" in name for name in names)
    with new_figure(COLUMN, 0.55 + 0.24 * rows) as figure:
        panel = figure.subplots()
        top = max(map(partial(_draw, panel), range(len(shown)), shown, colors), default=0.0)
        if not shown:
            say_nothing(panel, "no cell has a rate")
        if before is not None:
            panel.axvline(before, color=GREY, lw=0.9, ls=(0, (4, 3)))
        panel.set_xlim(-0.004, max(top * 1.3, 0.05))
        panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        panel.set_yticks(range(len(shown)), names)
        panel.set_ylim(len(shown) - 0.45, -0.55)
        panel.grid(axis="y", visible=False)
        level = "" if before is None else f"\n(dashed: {100 * before:z.1f} % before fine-tuning)"
        panel.set_xlabel(f"Harmful response rate{level}")
        panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        return figure


def _draw(panel: Axes, place: int, variant: ResultRow, color: str) -> float:
    """Draws a bar and returns how far to the right it reaches."""
    mean = variant.mean("hrr")
    ends = wilson_over_seeds(variant.done["hrr"], variant.done["hrr_n"]) or Interval(
        mean, mean, mean, 0
    )
    rates = variant.done["hrr"].dropna()
    panel.barh(place, mean, 0.62, color=color, alpha=0.55, zorder=2)
    panel.hlines(place, ends.low, ends.high, color="#333333", lw=1, zorder=3)
    panel.vlines((ends.low, ends.high), place - 0.1, place + 0.1, color="#333333", lw=1, zorder=3)
    rows = [place + 0.36 * ((i + 0.5) / len(rates) - 0.5) for i in range(len(rates))]
    panel.plot(rates, rows, "o", ms=3, mfc="white", mec=color, mew=0.9, zorder=4)
    right = max(ends.high, float(rates.max()))
    panel.annotate(
        f"{100 * mean:z.1f} %", (right, place), xytext=(5, 0), textcoords="offset points",
        va="center",
    )  # fmt: skip
    return right
