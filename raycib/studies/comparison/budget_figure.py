"""The best trial's harmful response rate against the number of trials."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from raycib.report.figures import MARKS, method_colors, new_figure
from raycib.report.frame import NAMES
from raycib.report.text import one_line


def budget_figure(curves: pd.DataFrame) -> Figure | None:
    """A panel for each setting, a line with its band for each method; None without curves."""
    if not len(curves):
        return None
    places = list(dict.fromkeys(curves["setting"]))
    colors = method_colors(curves["method"])
    with new_figure(7.6, 3.8 * len(places)) as figure:
        for panel, place in zip(
            figure.subplots(len(places), 1, squeeze=False)[:, 0], places, strict=True
        ):
            mine = curves[curves["setting"] == place]
            for number, (method, rows) in enumerate(mine.groupby("method", sort=False)):
                kind, mark = str(method), MARKS[number % len(MARKS)]
                x = rows["trials"]
                panel.fill_between(
                    x, rows["hrr_low"], rows["hrr_high"], color=colors[kind], alpha=0.09, lw=0
                )
                panel.plot(
                    x, rows["hrr"], color=colors[kind], marker=mark, ms=4.5, lw=1.5,
                    label=one_line(NAMES.get(kind, kind), 26),
                )  # fmt: skip
            panel.set_ylim(bottom=0)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            panel.set(xlabel="Trials", ylabel="HRR of the best, fresh prompts")
            if place:
                panel.set_title(one_line(place, 60))
            panel.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return figure
