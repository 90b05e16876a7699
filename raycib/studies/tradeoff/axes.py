"""Axes for gaps, which may be negative, zero, or orders of magnitude apart."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from raycib.studies.tradeoff.gap import Gap

Side = Literal["x", "y"]
WIDE = 20
"""From this ratio of the largest to the smallest gap on, an axis is logarithmic."""
DEPTH = 1_000
"""What is smaller than the largest gap by this factor is shown within the linear part."""


def gap_scale(panel: Axes, side: Side, values: Iterable[float]) -> None:
    """Scales and marks an axis for gaps in nats: linear, or logarithmic above and below a linear
    part around 0. Limits leave room on both sides of the finite ``values``."""
    found = [value for value in values if math.isfinite(value)]
    sizes = sorted(abs(value) for value in found if value)
    axis = panel.xaxis if side == "x" else panel.yaxis
    setter = panel.set_xscale if side == "x" else panel.set_yscale
    # Where both signs reach equally far, a logarithm would tear the axis apart around 0.
    if sizes and min(-min(found), max(found)) < sizes[-1] / 5 and sizes[-1] > WIDE * sizes[0]:
        small = next(size for size in sizes if size >= sizes[-1] / DEPTH)
        linear = 10.0 ** math.floor(math.log10(small))
        setter("symlog", linthresh=linear, linscale=0.6)
        decades = range(round(math.log10(linear)), math.ceil(math.log10(sizes[-1])) + 1)
        steps = (1, 3) if len(decades) <= 3 else (1,)
        marks = [step * 10.0**power for power in decades for step in steps]
        axis.set_major_locator(FixedLocator([*(-mark for mark in marks), 0, *marks]))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    if found:
        _limits(panel, side, min(0.0, *found), max(0.0, *found))


def log_scale(panel: Axes, values: Iterable[float]) -> None:
    """A logarithmic x axis for positive ``values``, with round marks among them."""
    found = [value for value in values if math.isfinite(value) and value > 0]
    if not found:
        return
    panel.set_xscale("log")
    low, high = min(found), max(found)
    steps = (1, 2, 5) if high / low < 300 else (1,)
    marks = [step * 10.0**power for power in range(-6, 6) for step in steps]
    panel.xaxis.set_major_locator(FixedLocator(marks))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _limits(panel, "x", low, high)


def bars(panel: Axes, x: Sequence[Gap], y: Sequence[Gap], color: Any) -> None:
    """95 % intervals both ways, where there are any; a place without width has none."""
    for across, up in zip(x, y, strict=True):
        if math.isfinite(up.high - up.low):
            panel.vlines(across.value, up.low, up.high, color=color, alpha=0.45, lw=0.9)
        if math.isfinite(across.high - across.low):
            panel.hlines(up.value, across.low, across.high, color=color, alpha=0.45, lw=0.9)


def mark_handle(color: Any, mark: str, label: str, ms: float = 5) -> Line2D:
    """A mark without a line, for a legend."""
    return Line2D([], [], color=color, marker=mark, ms=ms, ls="none", mec="white", mew=0.5,
                  label=label)  # fmt: skip


def _limits(panel: Axes, side: Side, low: float, high: float) -> None:
    """Limits a little outside ``low`` and ``high``, by how the axis is drawn."""
    axis = panel.xaxis if side == "x" else panel.yaxis
    transform = axis.get_transform()
    ends = transform.transform(np.asarray([low, high], dtype=float))
    room = 0.06 * (ends[1] - ends[0]) or 1.0
    shown = transform.inverted().transform(np.asarray([ends[0] - room, ends[1] + room]))
    (panel.set_xlim if side == "x" else panel.set_ylim)(float(shown[0]), float(shown[1]))
