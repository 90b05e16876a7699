"""Safety against what it costs: every method of a comparison in one picture.

A method keeps its colour in every sweep; variants of one method are its shades and differ by their
mark. Methods that train on safety data have dashed lines.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from raycib.config.menu import menu
from raycib.metrics import METRICS
from raycib.report.figures import (
    DASHES,
    FRONT,
    GREY,
    PAGE,
    draw_front,
    legend_below,
    new_figure,
    say_nothing,
    shades_of,
)
from raycib.report.forms import NOT_MEASURED
from raycib.report.frame import PLAIN
from raycib.report.labels import Labels
from raycib.report.statistics import constant
from raycib.report.text import one_line
from raycib.report.variants import CIB, ResultRow, by_series, plain_variant, settings, variants

MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
HRR_TICKS = (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1)
COSTS = {
    "over_refusal": ("Over-refusal", "Over-refusal: harmless prompts that are refused"),
    "utility": ("Utility lost", "Utility lost"),
    "accuracy": ("Task accuracy lost", "Task accuracy lost"),
}
"""What panel (b) may show, the first that differs anywhere; shares of which less is better."""
Look = tuple[str, str, bool, bool]


def price_figure(frame: pd.DataFrame, before: float | None = None) -> Figure:
    """(a) HRR against task loss; (b) HRR against over-refusal (or else utility or accuracy lost).

    Small marks are seeds, hollow ones means, joined through the strengths in order; the last
    strength is written beside its end where there is room. Both panels have the same scale of
    rates, of square roots. The grey steps in (a) are fronts, of all methods and of those that see
    no safety data: no coherent variant has both a lower loss and a lower HRR. ``before`` is the HRR
    before fine-tuning. A row of panels for each model and task.
    """
    parts = list(settings(frame)) or [("", frame)]
    names = list(dict.fromkeys(frame["series"]))
    height = 2.8 * len(parts) + 0.13 * -(-(len(names) + 4) // 4)
    with new_figure(PAGE, height, w_pad=0.04, h_pad=0.05, wspace=0.02) as figure:
        looks = _looks(frame)
        panels = figure.subplots(len(parts), 2, squeeze=False, width_ratios=(1.25, 1))
        for (name, part), (left, right) in zip(parts, panels, strict=True):
            found = [variant for variant in variants(part) if np.isfinite(variant.mean("hrr"))]
            left.set_title(f"(a)  {one_line(name, 40) or 'Harmful answers against task loss'}")
            cost = next((c for c in COSTS if not constant(part[c].dropna())), "accuracy")
            right.set_title(f"(b)  Against {COSTS[cost][0].lower()}")
            if not found:
                for panel in (left, right):
                    say_nothing(panel, "no cell has a rate")
                continue
            _points(left, found, "eval_loss", looks)
            _loss_axis(left, found)
            without = [variant for variant in found if not variant.safety_data]
            _front(left, without, "-")
            if len(without) < len(found):
                _front(left, found, DASHES)
            if not any(np.isfinite(variant.mean(cost)) for variant in found):
                say_nothing(right, NOT_MEASURED)
            if not any(np.isfinite(variant.mean("eval_loss")) for variant in found):
                say_nothing(left, NOT_MEASURED)
            _points(right, found, cost, looks)
            _share_axis(right, cost)
            for panel in (left, right):
                _hrr_axis(panel, found, before)
                labels = Labels(panel, 6.5)
                if panel is left:
                    _name_strengths(labels, found, looks)
                if before is not None:
                    labels.along(before, f"before fine-tuning {100 * before:z.1f} %", GREY)
            left.set_ylabel("Harmful response rate (√ scale)")
        legend_below(figure, _legend(names, looks))
        return figure


def _looks(frame: pd.DataFrame) -> dict[str, Look]:
    """Colour, mark, whether it sees safety data and whether it is plain LoRA, by series; several of
    one method, in their order, are its shades from light to dark."""
    kinds = dict(zip(frame["series"], frame["method"], strict=True))
    taught = set(frame["series"][frame["safety_data"]])
    marks = {kind: m.about.mark for kind, m in menu().items() if m.about.mark} | {
        "lora_variant": "v"
    }
    unmarked = [kind for kind in dict.fromkeys(kinds.values()) if kind not in marks]
    marks |= {kind: MARKS[(7 + i) % len(MARKS)] for i, kind in enumerate(unmarked)}
    looks: dict[str, Look] = {}
    for (series, kind), color in zip(kinds.items(), shades_of(kinds.values()), strict=True):
        variant = sum(kinds[other] == kind for other in looks)
        mark = MARKS[(MARKS.index(marks[kind]) + 3 * variant) % len(MARKS)]
        looks[series] = color, mark, series in taught, kind == PLAIN
    return looks


def _points(panel: Axes, found: Sequence[ResultRow], column: str, looks: dict[str, Look]) -> None:
    for series, mine in by_series(found).items():
        color, mark, safety_data, plain = looks[series]
        for variant in mine:
            x = _cost(variant.done[column], column)
            panel.plot(x, variant.done["hrr"], mark, ms=2.6, color=color, alpha=0.4, mew=0)
        x = [float(_cost(variant.mean(column), column)) for variant in mine]
        y = [variant.mean("hrr") for variant in mine]
        dashes = DASHES if safety_data else "-"
        width = 1.6 if mine[0].method == CIB else 1
        panel.plot(x, y, color=color, lw=width, alpha=0.85, ls=dashes)
        panel.plot(
            x, y, mark, ms=6.5 if plain else 4.8, mfc=color if plain else "white", mec=color,
            mew=1.2, zorder=4,
        )  # fmt: skip
        garbled = [i for i, variant in enumerate(mine) if not variant.coherent]
        panel.plot(
            [x[i] for i in garbled], [y[i] for i in garbled], "x", ms=3.5, color=color, zorder=5
        )


def _cost(values: pd.Series | float, column: str) -> pd.Series | float:
    """The price in ``column``: a loss or a rate as it is, of a thing kept what is lost of it."""
    return 1 - values if METRICS[column].better == "higher" else values


def _front(panel: Axes, found: Sequence[ResultRow], dashes: Any) -> None:
    """Grey steps through the coherent variants that none beats in both HRR and task loss."""
    points = [(v.mean("eval_loss"), v.mean("hrr")) for v in found if v.coherent]
    draw_front(panel, [one for one in points if np.isfinite(one[0])], 1.0, ls=dashes)


def _name_strengths(labels: Labels, found: Sequence[ResultRow], looks: dict[str, Look]) -> None:
    """Plain LoRA by name; and the last strength of each line, where there is room."""
    if lora := plain_variant(found):
        place = lora.mean("eval_loss"), lora.mean("hrr")
        labels.beside(*place, one_line(lora.series, 24), looks[lora.series][0])
    for series, mine in by_series(found).items():
        if len(mine) > 1:
            place = mine[-1].mean("eval_loss"), mine[-1].mean("hrr")
            labels.beside(*place, f"{mine[-1].strength:g}", looks[series][0])


def _loss_axis(panel: Axes, found: Sequence[ResultRow]) -> None:
    losses = [x for variant in found for x in variant.done["eval_loss"] if np.isfinite(x)]
    panel.set_xlabel("Task loss, nats")
    if losses and min(losses) > 0 and max(losses) > 10 * min(losses):
        panel.set_xscale("log")
        low, high = np.log10(min(losses)), np.log10(max(losses))
        panel.set_xlim(10 ** (low - 0.06 * (high - low)), 10 ** (high + 0.1 * (high - low)))
        ticks = [d * 10.0**p for p in range(-6, 7) for d in (1, 2, 5)]
        panel.xaxis.set_major_locator(FixedLocator(ticks))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        panel.margins(x=0.08)
    if lora := plain_variant(found):
        panel.axvline(lora.mean("eval_loss"), color=GREY, lw=0.8, ls=":", zorder=1)


def _share_axis(panel: Axes, cost: str) -> None:
    panel.set_xlabel(COSTS[cost][1])
    panel.margins(x=0.08)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))


def _hrr_axis(panel: Axes, found: Sequence[ResultRow], before: float | None) -> None:
    """Rates on a square-root scale, which gives the low ones, where methods differ, their room."""
    top = max(*(float(variant.done["hrr"].max()) for variant in found), before or 0.0, 0.05)
    panel.set_yscale("function", functions=(_root, _square))
    panel.set_ylim(-0.0012 * top, 1.12 * top)
    panel.yaxis.set_major_locator(FixedLocator([tick for tick in HRR_TICKS if tick <= 1.12 * top]))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if before is not None:
        panel.axhline(before, color=GREY, lw=0.9, ls=(0, (4, 3)), zorder=1)


def _root(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.sqrt(np.abs(values))


def _square(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.square(values)


def _legend(names: Sequence[str], looks: dict[str, Look]) -> list[Line2D]:
    handles: list[Line2D] = []
    for name in names:
        color, mark, safety_data, plain = looks[name]
        handles.append(
            Line2D([], [], color=color, marker=mark,
                   mfc=color if plain else "white",
                   ls=DASHES if safety_data else "-", label=one_line(name, 34))
        )  # fmt: skip
    if any(safety_data for _, _, safety_data, _ in looks.values()):
        handles += [
            Line2D([], [], color=GREY, ls=DASHES, label="sees safety data"),
            Line2D([], [], color=FRONT, label="front without safety data"),
            Line2D([], [], color=FRONT, ls=DASHES, label="front of all"),
        ]
    else:
        handles.append(Line2D([], [], color=FRONT, label="front"))
    garbled = {"color": GREY, "marker": "x", "ls": "none", "ms": 3.5}
    return [*handles, Line2D([], [], label="over 10 % incoherent", **garbled)]
