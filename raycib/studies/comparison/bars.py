"""The CIB paper's Figure 3 for any ablation: harmful response rates, row by row."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from raycib.report.figures import GREY, method_colors, new_figure, say_nothing
from raycib.report.statistics import Interval, wilson_over_seeds
from raycib.report.text import one_line
from raycib.report.variants import ResultRow, settings, variants

SHADES = (0.4, 0.6, 0.25, 0.75)
"""Opacity of the bars of one method, in turn."""


def bars(frame: pd.DataFrame, before: float | None = None) -> Figure:
    """One bar for each variant, in the order given: the mean HRR over seeds (dots), with Wilson's
    95 % interval at the mean for the number of prompts. ``before`` is the HRR before
    fine-tuning."""
    found = [variant for _, part in settings(frame) for variant in variants(part)]
    shown = [variant for variant in found if math.isfinite(variant.mean("hrr"))]
    colors = method_colors(frame["method"])
    with new_figure(8.2, 1.1 + 0.42 * max(len(shown), 1)) as figure:
        panel = figure.subplots()
        top = max(
            (_draw(panel, i, variant, shown, colors) for i, variant in enumerate(shown)),
            default=0.0,
        )
        if not shown:
            say_nothing(panel, "no cell has a rate")
        if before is not None:
            panel.axvline(before, color=GREY, lw=1, ls=(0, (4, 3)))
        panel.set_xlim(-0.004, max(top * 1.14, 0.05))
        panel.set_yticks(range(len(shown)), [one_line(variant.name, 44) for variant in shown])
        panel.set_ylim(len(shown) - 0.45, -0.55)
        panel.grid(axis="y", visible=False)
        level = "" if before is None else f"   (dashed: {100 * before:z.1f} % before fine-tuning)"
        panel.set_xlabel(f"Harmful response rate{level}")
        panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        return figure


def _draw(
    panel: Axes,
    place: int,
    variant: ResultRow,
    shown: Sequence[ResultRow],
    colors: Mapping[str, str],
) -> float:
    """Draws a bar and returns how far to the right it reaches."""
    mean, color = variant.mean("hrr"), colors[variant.method]
    shade = SHADES[sum(other.method == variant.method for other in shown[:place]) % len(SHADES)]
    ends = wilson_over_seeds(variant.done["hrr"], variant.done["hrr_n"]) or Interval(
        mean, mean, mean, 0
    )
    rates = variant.done["hrr"].dropna()
    panel.barh(place, mean, 0.62, color=color, alpha=shade, zorder=2)
    panel.hlines(place, ends.low, ends.high, color="#333333", lw=1.2, zorder=3)
    panel.vlines((ends.low, ends.high), place - 0.1, place + 0.1, color="#333333", lw=1.2, zorder=3)
    rows = [place + 0.36 * ((i + 0.5) / len(rates) - 0.5) for i in range(len(rates))]
    panel.plot(rates, rows, "o", ms=4, mfc="white", mec=color, mew=1.1, zorder=4)
    right = max(ends.high, float(rates.max()))
    panel.annotate(
        f"{100 * mean:z.1f} %", (right, place), xytext=(7, 0), textcoords="offset points",
        va="center", fontsize=9,
    )  # fmt: skip
    return right
