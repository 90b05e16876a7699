"""The house style of figures, and the loss curves.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; lines carry their name
where there is room, and a mark as well as a colour. The same data give the same bytes.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raycib.config.menu import menu
from raycib.report.statistics import front
from raycib.report.text import one_line

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#6b6b6b"
COLORS = {kind: method.about.color for kind, method in menu().items() if method.about.color} | {
    "lora_variant": "#4D4D4D"
}
OTHERS = ("#4B6A88", "#7F6000", "#B05CC4", "#00808A")
"""Colours of methods that have none of their own."""
FRONT = "#a8a8a8"
DASHES: Any = (0, (4, 2))
MOST_POINTS = 400
"""Steps of a loss curve that are drawn: more than its panel has room for."""
MOST_MARKS = 300
"""Cells whose marks are lines of an SVG; of more, they are one picture in it."""
NATS = ("task", "constrained", "alignment", "kl", "contrast")
"""Terms of losses in this unit; distances, overlaps and the like have their own."""
MOST_CURVES = 6
"""Rows of a comparison that one panel of loss curves can hold."""
STYLE: Any = {
    "font.family": "sans-serif",
    # The first ships with matplotlib; a browser without it takes the other, which is as wide.
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.size": 9.5,
    "mathtext.fontset": "dejavusans",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "grid.color": "#ebebeb",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "svg.hashsalt": "raycib",
    "svg.fonttype": "none",  # text stays text: it is found, copied and edited
    "pdf.fonttype": 42,
    "path.simplify": False,
    "text.parse_math": False,  # a name with a dollar sign is a name
}


@contextmanager
def new_figure(width: float, height: float, **room: float) -> Iterator[Figure]:
    """A figure in the house style while it is drawn, in inches; ``room`` between its panels is what
    matplotlib's constrained layout takes."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.get_layout_engine().set(**room)  # pyright: ignore[reportOptionalMemberAccess]
        yield figure


def method_colors(methods: Iterable[str]) -> dict[str, str]:
    """A colour for each of ``methods``, and for those of the menu."""
    unknown = [kind for kind in dict.fromkeys(methods) if kind not in COLORS]
    return COLORS | {kind: OTHERS[i % len(OTHERS)] for i, kind in enumerate(unknown)}


def say_nothing(panel: Axes, why: str) -> None:
    """Written in the middle of a panel that has nothing to show."""
    panel.text(0.5, 0.5, why, ha="center", color=GREY, transform=panel.transAxes)


def draw_front(panel: Axes, points: Sequence[tuple[float, float]], top: float, **look: Any) -> None:
    """Grey steps through the points that none beats, from ``top`` down to the right."""
    if steps := front(points):
        x, y = zip((steps[0][0], top), *steps, (panel.get_xlim()[1], steps[-1][1]), strict=True)
        panel.step(x, y, where="post", color=FRONT, zorder=1.5, **look)


def loss_curves(
    frame: pd.DataFrame, histories: Mapping[str, Sequence[Mapping[str, Any]]], by: str = "strength"
) -> Figure | None:
    """Every loss term, unweighted, by step: one line for each strength, the mean over its seeds.

    ``by`` may name another column whose values have a line each. None where no history holds a
    term.
    """
    curves: dict[str, dict[Any, list[tuple[int, Any]]]] = {}
    for key, line in zip(frame["key"], frame[by], strict=True):
        history = thinned(histories.get(str(key), ()), MOST_POINTS)
        for term in set().union(*history) - {"step", "grad_norm", "lr", "learning_rate"}:
            told = [(one["step"], one.get(term)) for one in history]
            if points := [point for point in told if isinstance(point[1], (int, float))]:
                curves.setdefault(str(term), {}).setdefault(line, []).extend(points)
    if not curves:
        return None
    terms = sorted(curves, key=lambda term: (term != "task", term))[:4]
    drawn = set().union(*curves.values())
    rising = by == "strength"
    lines = sorted(drawn) if rising else [v for v in dict.fromkeys(frame[by]) if v in drawn]
    with new_figure(min(4.3 * len(terms) + 0.4, 12), 3.0) as figure:
        panels = figure.subplots(1, len(terms), squeeze=False)[0]
        for panel, term in zip(panels, terms, strict=True):
            for index, value in enumerate(lines):
                if points := curves[term].get(value):
                    steps, values = zip(*points, strict=True)
                    mean = pd.Series(values, steps, float).groupby(level=0).mean()
                    shade = _shade(index, len(lines)) if rising else PALETTE[index % len(PALETTE)]
                    label = f"{value:g}" if rising else one_line(value, 34)
                    panel.plot(mean.index, mean, color=shade, lw=1.6, label=label)
            panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            panel.set(xlabel="step", ylabel="nats, unweighted" if term in NATS else "unweighted")
            panel.set_title(one_line(term, 30))
        panels[0].legend(
            title="λ" if rising else None, frameon=False, fontsize=8.5, title_fontsize=9
        )
        return figure


def thinned(history: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """At most `most` and one entries of a curve, evenly spaced, its last among them."""
    every = -(-len(history) // most) or 1
    return [
        entry
        for place, entry in enumerate(history, 1)
        if place % every == 0 or place == len(history)
    ]


def curves_by_variant(
    cells: pd.DataFrame, histories: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Figure | None:
    """``loss_curves`` with a line for each variant of cells that ``named`` gives; None where there
    are too many for one panel."""
    few = cells["variant"].nunique() <= MOST_CURVES
    return loss_curves(cells, histories, "variant") if few else None


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG: text as text, no date, the same bytes for the same data."""
    return _saved(figure, "svg", metadata={"Date": None, "Creator": None})


def to_png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as PNG on white."""
    FigureCanvasAgg(figure)
    return _saved(figure, "png", dpi=dpi, metadata={"Software": None}, facecolor="white")


def to_pdf(figure: Figure) -> bytes:
    """The figure as PDF for a paper: fonts embedded, no date, the same bytes for the same data."""
    return _saved(figure, "pdf", metadata={"CreationDate": None, "Producer": None})


def _saved(figure: Figure, form: str, **how: Any) -> bytes:
    with rc_context(STYLE):
        out = io.BytesIO()
        figure.savefig(out, format=form, **how)
        return out.getvalue()


def _shade(index: int, count: int) -> tuple[float, float, float]:
    """From light to dark blue: an order of strengths, which is not a set of kinds."""
    share = index / max(count - 1, 1)
    light, dark = np.array([0.62, 0.79, 0.88]), np.array([0.03, 0.19, 0.42])
    red, green, blue = light + (dark - light) * share
    return float(red), float(green), float(blue)
