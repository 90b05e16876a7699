"""Continual fine-tuning in one number a method: stability and backward transfer (the CIB paper's
Figures 6 and 7), and how far results are spread over the orders of the tasks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from raycib.report.figures import GREY, MARKS, PAGE, new_figure, say_nothing
from raycib.report.forms import in_points
from raycib.report.text import one_line
from raycib.studies.continual.sequences import Sequences, by_seed
from raycib.studies.continual.stage_figures import Look, looks_of
from raycib.studies.continual.variance import (
    BOTH,
    ERROR,
    METHOD,
    NO_VARIANCE,
    ORDER,
    RESPONSES,
    SEED,
    analyse,
    spread_over_orders,
)  # fmt: skip

SHADES = {ORDER: "#0072B2", METHOD: "#E69F00", BOTH: "#CC79A7", SEED: "#009E73", ERROR: "#c9ccd1"}
"""Colours of the sources of variance, here alone."""
ROOM = {"w_pad": 0.05, "h_pad": 0.05, "wspace": 0.03}
SPREAD = {"hrr": "(a)  Harmful responses at the end", "bt": "(b)  BT",
          "bwt_all": "(c)  BWT, all tasks"}  # fmt: skip


def figure6(sequences: Sequences) -> Figure | None:
    """Stability, the population standard deviation of a task's accuracy over the stages from its
    own on: of the first task that BT counts, and of the first task of all where that is another."""
    orders = sequences.orders
    first = {
        next(t for t in order if t != sequences.left_out) for order in orders if len(order) > 1
    }
    watched = (
        one_line(next(iter(first)), 20) if len(first) == 1 else "the first task that BT counts"
    )
    panels = {"stability": f"(a)  Stability of {watched}"}
    if any(order[0] == sequences.left_out for order in orders):
        of = one_line(sequences.left_out, 20) if len(orders) == 1 else "the first task of all"
        panels["stability_first"] = f"(b)  Stability of {of}"
    return _bars(sequences, panels, "points (ddof = 0): shorter is steadier", signed=False)


def figure7(sequences: Sequences) -> Figure | None:
    """Backward transfer without the task that the paper leaves out, and with it."""
    out = one_line(sequences.left_out, 20)
    panels = {"bwt": f"(a)  BWT without {out} (the paper's)", "bwt_all": f"(b)  BWT with {out}"}
    return _bars(sequences, panels, "points: below 0 later stages cost accuracy", signed=True)


def figure_orders(sequences: Sequences) -> Figure | None:
    """(a) to (c) final HRR, BT and BWT of each method, a mark for each order, whose shape says
    which task came last; (d) which share of their variance lies in the order. None for one order.
    """
    if len({run.order for run in sequences.done}) < 2:
        return None
    looks = looks_of(sequences)
    variants = list(sequences.variants)
    last = list(dict.fromkeys(run.order[-1] for run in sequences.done))
    marks = {task: MARKS[i % len(MARKS)] for i, task in enumerate(last)}
    with new_figure(PAGE, 1.4 + 0.46 * len(variants), **ROOM) as figure:
        grid: Sequence[Axes] = figure.subplots(2, 2).ravel()
        for panel, (measure, title) in zip(grid, SPREAD.items(), strict=False):
            for row, variant in enumerate(variants):
                found = spread_over_orders(sequences, variant, measure)
                _orders(panel, row, found, looks[variant], marks)
            _rows(panel, variants)
            panel.set_title(title)
            unit = "points" if measure == "bwt_all" else "%"
            panel.set_xlabel(f"{unit}; marks: orders, line: their mean")
        sources = _shares(grid[3], sequences)
        handles = [
            Line2D([], [], color=GREY, marker=mark, ls="none", mfc="white",
                   label=f"{one_line(task, 20)} last")
            for task, mark in marks.items()
        ]  # fmt: skip
        look: Any = {"handlelength": 1, "columnspacing": 1.2}
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), **look)
        if sources:
            figure.legend(handles=sources, loc="outside lower right", ncols=len(sources), **look)
        return figure


def _bars(
    sequences: Sequences, titles: Mapping[str, str], label: str, signed: bool
) -> Figure | None:
    """A panel for each measure: bars of means over seeds (dots), in points."""
    variants = list(sequences.variants)
    looks = looks_of(sequences)
    values = {
        measure: {v: list(by_seed(sequences.variants[v], measure).values()) for v in variants}
        for measure in titles
    }  # fmt: skip
    if not any(v for found in values.values() for v in found.values()):
        return None
    with new_figure(PAGE, 0.7 + 0.25 * len(variants), **ROOM) as figure:
        panels = figure.subplots(1, len(titles), squeeze=False, sharey=True)[0]
        for panel, (measure, title) in zip(panels, titles.items(), strict=True):
            for row, variant in enumerate(variants):
                _bar(panel, row, values[measure][variant], looks[variant], signed)
            _rows(panel, variants)
            panel.set_title(title)
            panel.set_xlabel(label)
            panel.margins(x=0.14)
            if signed:
                panel.axvline(0, color="#444444", lw=0.9, zorder=3)
        return figure


def _bar(panel: Axes, row: int, values: Sequence[float], look: Look, signed: bool) -> None:
    if not values:
        panel.annotate("not measured", (0, row), xytext=(4, 0), textcoords="offset points",
                       va="center", color=GREY)  # fmt: skip
        return
    mean = float(np.mean(values))  # of fractions: as in the table, to the last digit
    panel.barh(row, 100 * mean, 0.6, color=look.color, alpha=0.45, zorder=2)
    rows = [row + 0.34 * ((i + 0.5) / len(values) - 0.5) for i in range(len(values))]
    points = [100 * value for value in values]
    panel.plot(points, rows, "o", ms=3, mfc="white", mec=look.color, mew=0.9, zorder=4)
    end = min(*points, 0.0) if mean < 0 else max(*points, 0.0)
    panel.annotate(
        in_points(mean) if signed else f"{100 * mean:z.1f}", (end, row),
        xytext=(-5 if mean < 0 else 5, 0), textcoords="offset points", va="center",
        ha="right" if mean < 0 else "left",
    )  # fmt: skip


def _orders(
    panel: Axes, row: int, found: Mapping[tuple[str, ...], float], look: Look,
    marks: Mapping[str, str],
) -> None:  # fmt: skip
    """Orders of one variant: those with the same last task stand on one line."""
    lasts = list(marks)
    for order, value in found.items():
        shift = 0.5 * ((lasts.index(order[-1]) + 0.5) / len(lasts) - 0.5)
        panel.plot(100 * value, row + shift, marks[order[-1]], ms=3.6, mfc="white",
                   mec=look.color, mew=0.9, alpha=0.8, zorder=3)  # fmt: skip
    if found:
        mean = 100 * float(np.mean(list(found.values())))
        panel.vlines(mean, row - 0.36, row + 0.36, color=look.color, lw=1.6, zorder=4)


def _shares(panel: Axes, sequences: Sequences) -> list[Line2D]:
    """Stacked shares of the variance of each response, of which the small ones have no number;
    returns what a legend needs."""
    found = {label: a for measure, label in RESPONSES.items() if (a := analyse(sequences, measure))}
    panel.set_title("(d)  Where the variance lies")
    if not found:
        say_nothing(panel, "no balanced set of runs")
        return []
    for row, analysis in enumerate(found.values()):
        left = 0.0
        if all(math.isnan(source.share) for source in analysis.sources):
            panel.text(2, row, NO_VARIANCE, va="center", color=GREY)
        for source in analysis.sources:
            share = 100 * source.share if math.isfinite(source.share) else 0.0
            panel.barh(row, share, 0.62, left=left, color=SHADES[source.name], zorder=2)
            if share >= 9:
                panel.text(left + share / 2, row, f"{share:z.0f}", ha="center", va="center",
                           color="#111111", zorder=3)  # fmt: skip
            left += share
    _rows(panel, list(found))
    panel.set_xlim(0, 100)
    panel.set_xlabel("% of the sum of squares (η²)")
    names = dict.fromkeys(source.name for a in found.values() for source in a.sources)
    return [Line2D([], [], color=SHADES[name], lw=5, label=name.replace(" x ", " × "))
            for name in names]  # fmt: skip


def _rows(panel: Axes, names: Sequence[str]) -> None:
    """Names at the left, the first on top."""
    panel.set_yticks(range(len(names)), [one_line(name, 26) for name in names])
    panel.set_ylim(len(names) - 0.45, -0.55)
    panel.grid(axis="y", visible=False)
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
