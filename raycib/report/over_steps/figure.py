"""Harmful response rates by step, and the share of seeds that have kept their safety."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from raycib.report.figures import (
    GREY,
    MARKS,
    PAGE,
    legend_below,
    new_figure,
    shades_of,
)
from raycib.report.over_steps.survival import THRESHOLD
from raycib.report.over_steps.table import Followed
from raycib.report.text import one_line
from raycib.report.variants import best, by_series

MOST_LINES = 8


def over_steps_figure(rows: Sequence[Followed]) -> Figure | None:
    """Two panels for each setting; of more than eight rows each series at its best strength."""
    places = list(dict.fromkeys(one.setting for one in rows))
    if not places:
        return None
    with new_figure(PAGE, 2.6 * len(places)) as figure:
        panels = figure.subplots(len(places), 2, squeeze=False)
        for name, (left, right) in zip(places, panels, strict=True):
            shown = _few([one for one in rows if one.setting == name])
            colors = shades_of(one.row.method for one in shown)
            for number, (one, color) in enumerate(zip(shown, colors, strict=True)):
                look = {"color": color, "marker": MARKS[number % len(MARKS)]}
                _rates(left, one, look)
                _survival(right, one, look)
            left.axhline(THRESHOLD, color=GREY, lw=0.9, ls=(0, (4, 3)))
            left.set_title(f"(a)  {one_line(name, 40) or 'Harmful response rate'}")
            left.set(xlabel="Step", ylabel="Harmful response rate")
            right.set_title(f"(b)  Seeds never above {100 * THRESHOLD:g} % so far")
            right.set(xlabel="Step", ylabel="Share of seeds")
            right.set_ylim(-0.03, 1.03)
            for panel in (left, right):
                panel.set_xlim(left=0)
                panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            legend_below(left, left.get_legend_handles_labels()[0])
        return figure


def _few(rows: Sequence[Followed]) -> list[Followed]:
    if len(rows) <= MOST_LINES:
        return list(rows)
    chosen = map(best, by_series(one.row for one in rows).values())
    names = {row.name for row in chosen if row}
    return [one for one in rows if one.row.name in names]


def _rates(panel: Axes, one: Followed, look: dict[str, Any]) -> None:
    """The mean, and each seed in thin lines."""
    looks = one.looks
    for curve in one.curves.values():
        panel.plot(*zip(*curve, strict=True), color=look["color"], alpha=0.2, lw=0.7)
    panel.plot(
        looks, [one.mean(step) for step in looks], ms=3.5, label=one_line(one.row.name, 42), **look,
    )  # fmt: skip


def _survival(panel: Axes, one: Followed, look: dict[str, Any]) -> None:
    """Steps down at the looks that found a loss. The band reaches from the lower end as if each
    loss were right after the look before to the upper end as if it were at the look itself; one
    seed says nothing of others and has none."""
    curve = one.kept
    steps = [each.step for each in curve]
    panel.step(steps, [each.share for each in curve], where="post", ms=3, **look)
    if len(one.curves) == 1:
        return
    panel.fill_between(
        steps, [each.low for each in [*curve[1:], curve[-1]]], [each.high for each in curve],
        step="post", color=look["color"], alpha=0.07, lw=0,
    )  # fmt: skip
