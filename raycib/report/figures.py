"""The house style of figures, and the loss curves.

A figure is as wide as a page or a column of a paper, and its letters are as high as they should be
there; the page of a report enlarges both. Colours are Okabe and Ito's, which colour-blind readers
can tell apart; lines carry their name where there is room, and a mark as well as a colour. The same
data give the same bytes.
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
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raycib.config.menu import menu
from raycib.report.statistics import front
from raycib.report.text import one_line

PAGE, COLUMN = 6.75, 3.3
"""Widths of a figure in inches: of a page of a paper in two columns (ICML's), and of a column."""
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
    "font.size": 7,
    "mathtext.fontset": "dejavusans",
    "axes.titlesize": 7.5,
    "axes.titlepad": 4,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.color": "#ebebeb",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.labelpad": 2.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "lines.markeredgewidth": 1.1,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.major.size": 2.5,
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


def shades(color: str, count: int) -> list[str]:
    """A hue from light to dark, for what has an order: the strengths or the forms of a method. One
    alone has the colour itself."""
    steps = np.linspace(0.4, -0.4, count) if count > 1 else [0.0]
    return [
        to_hex(tuple(c + abs(step) * (float(step > 0) - c) for c in to_rgb(color)))  # pyright: ignore
        for step in steps
    ]


def shades_of(methods: Iterable[str]) -> list[str]:
    """The colour of each of ``methods``; one that stands there more often has its shades."""
    every = list(methods)
    hues = {
        kind: iter(shades(color, every.count(kind)))
        for kind, color in method_colors(every).items()
        if kind in every
    }
    return [next(hues[kind]) for kind in every]


def legend_below(owner: Figure | Axes, handles: Sequence[Any]) -> None:
    """A legend below a figure or below a panel of it, where it hides nothing, in as many columns
    as there is room for."""
    figure, panels, place = owner, 1, {"loc": "outside lower center"}
    if isinstance(owner, Axes):
        figure, panels = owner.figure, owner.get_subplotspec().get_gridspec().ncols  # pyright: ignore
        # Below the numbers of the axis and what they are of.
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 3.6}
    longest = max((len(str(one.get_label())) for one in handles), default=1)
    room = 72 * figure.get_figwidth() / panels  # pyright: ignore
    columns = int(room / (30 + 0.55 * STYLE["font.size"] * longest))
    owner.legend(handles=handles, ncols=max(1, min(columns, len(handles))), **place)  # pyright: ignore


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
    with new_figure(PAGE if len(terms) > 1 else COLUMN, 2.1) as figure:
        panels = figure.subplots(1, len(terms), squeeze=False)[0]
        colors = shades(PALETTE[0], len(lines)) if rising else PALETTE
        for panel, term in zip(panels, terms, strict=True):
            for index, value in enumerate(lines):
                if points := curves[term].get(value):
                    steps, values = zip(*points, strict=True)
                    mean = pd.Series(values, steps, float).groupby(level=0).mean()
                    label = f"λ = {value:g}" if rising else one_line(value, 34)
                    panel.plot(mean.index, mean, color=colors[index], label=label)
            panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            panel.set(xlabel="step", ylabel="nats, unweighted" if term in NATS else "unweighted")
            panel.set_title(one_line(term, 30))
        legend_below(figure, panels[0].get_legend_handles_labels()[0])
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


def to_png(figure: Figure, dpi: int = 300) -> bytes:
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
