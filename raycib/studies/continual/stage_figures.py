"""Continual fine-tuning stage by stage: what becomes of each task (the CIB paper's Figures 4 and 5)
and of safety, which the paper shows after the last stage alone.

Methods have the colours of ``tradeoff``; whatever has a colour has a mark as well. Lines are means
over seeds, small marks seeds. Figures over stages show one order: the paper's where it was run.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from raycib.report.figures import MARKS, PAGE, legend_below, new_figure, shades_of
from raycib.report.forms import in_points
from raycib.report.frame import PLAIN
from raycib.report.text import one_line
from raycib.report.variants import CIB
from raycib.studies.continual.scores import forgetting
from raycib.studies.continual.sequences import ARROW, Sequences

TRAINED = "#eef3f8"
"""Behind the stage that trained a panel's task."""
CHANGE = LinearSegmentedColormap.from_list("change", ["#0072B2", "#ffffff", "#D55E00"])
"""Gained (blue), unchanged, lost (red): told apart by colour-blind readers."""
MOST_COLUMNS = 4
"""Panels of tasks beside each other."""
ROOM = {"w_pad": 0.04, "h_pad": 0.05, "wspace": 0.02}
Path = Sequence[float]


@dataclass(frozen=True)
class Look:
    """How a variant is drawn: CIB's lines are the thickest, plain LoRA's marks alone are filled."""

    color: str
    mark: str
    face: str
    width: float


def figure4(sequences: Sequences) -> Figure | None:
    """Accuracy on every task from before fine-tuning through every stage: a panel for each task,
    in the order of training. None where no run finished."""
    variants, order, looks = sequences.main.variants, sequences.main.orders[0], looks_of(sequences)
    if not variants:
        return None
    rows, columns = -(-len(order) // MOST_COLUMNS), min(len(order), MOST_COLUMNS)
    with new_figure(PAGE, 0.2 + 2.1 * rows, **ROOM) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel in panels[len(order) :]:
            panel.set_visible(False)
        panels = panels[: len(order)]
        for place, (panel, task) in enumerate(zip(panels, order, strict=True)):
            panel.axvspan(place + 0.5, place + 1.5, color=TRAINED, lw=0, zorder=0)
            paths = {variant: [list(run.matrix[:, place]) for run in runs]
                     for variant, runs in variants.items()}  # fmt: skip
            _lines(panel, paths, looks)
            _stages(panel, ["before", *order])
            panel.tick_params(axis="x", rotation=50 if columns > 2 else 0)
            panel.set_ylim(-0.03, 1.05)
            panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            panel.set_title(one_line(task, 24))
        panels[0].set_ylabel("Accuracy (shaded: its own stage)")
        _legend(figure, variants, looks)
        return figure


def safety_by_stage(sequences: Sequences) -> Figure | None:
    """(a) HRR and (b) refusals of harmful prompts, before fine-tuning and after every stage."""
    variants, order, looks = sequences.main.variants, sequences.main.orders[0], looks_of(sequences)
    if not variants:
        return None
    with new_figure(PAGE, 2.4, **ROOM) as figure:
        panels = figure.subplots(1, 2)
        titles = {"hrr": "(a)  Harmful responses", "refusal_rate": "(b)  Refusals"}
        for panel, (column, title) in zip(panels, titles.items(), strict=True):
            start = sequences.aligned.get(column)
            first = [math.nan if start is None else float(start)]
            paths = {
                variant: [first + [run.after(i, column) for i in range(len(order))] for run in runs]
                for variant, runs in variants.items()
            }
            _lines(panel, paths, looks)
            _stages(panel, ["before", *order])
            panel.set_title(title)
            panel.set_ylim(-0.03, 1.05)
            panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        panels[0].set_ylabel("Share of harmful prompts")
        _legend(figure, variants, looks)
        return figure


def figure5(sequences: Sequences) -> Figure | None:
    """Points of accuracy lost from one stage to the next: a panel for each task that others
    followed, a row for each method, a column for each transition. Means over seeds."""
    variants, order = sequences.main.variants, sequences.main.orders[0]
    if not variants or len(order) < 2:
        return None
    means = {variant: np.mean([forgetting(run.matrix) for run in runs], axis=0)
             for variant, runs in variants.items()}  # fmt: skip
    lost = np.array(list(means.values()))
    if not np.isfinite(lost).any():
        return None
    most = max(float(np.nanmax(np.abs(100 * lost))), 1.0)
    norm = TwoSlopeNorm(0, -most, most)
    tasks = range(len(order) - 1)
    height, room = 0.7 + 0.25 * len(variants), ROOM | {"wspace": 0.01}
    with new_figure(PAGE, height, **room) as figure, rc_context({"axes.grid": False}):
        widths = [len(order) - 1 - task for task in tasks]
        panels = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
        for panel, task in zip(panels, tasks, strict=True):
            values = lost[:, task:, task]
            panel.imshow(100 * values, cmap=CHANGE, norm=norm, aspect="auto")
            for (row, column), value in np.ndenumerate(values):
                color = "white" if abs(100 * value) > 0.7 * most else "#222222"
                panel.text(column, row, in_points(value), ha="center", va="center", color=color)
            steps = [f"{ARROW}{one_line(name, 14)}" for name in order[task + 1 :]]
            panel.set_xticks(range(len(steps)), steps)
            panel.tick_params(length=0)
            panel.spines[:].set_visible(False)
            panel.set_yticks(range(len(variants)), [one_line(variant, 24) for variant in variants])
            if task:
                panel.set_yticks([])
            panel.set_title(f"Lost of {one_line(order[task], 20)}")
        bar = figure.colorbar(panels[0].images[0], ax=panels, pad=0.01, aspect=14)
        bar.set_label("points lost")
        bar.outline.set_visible(False)  # pyright: ignore
        return figure


def looks_of(sequences: Sequences) -> dict[str, Look]:
    """Colour and mark of every variant; those of one method are its shades."""
    methods = {run.variant: run.cell.method for run in sequences.runs}
    colors = shades_of(methods.values())
    looks: dict[str, Look] = {}
    for place, ((variant, method), color) in enumerate(zip(methods.items(), colors, strict=True)):
        face, width = color if method == PLAIN else "white", 1.7 if method == CIB else 1.1
        looks[variant] = Look(color, MARKS[place % len(MARKS)], face, width)
    return looks


def handle(variant: str, look: Look) -> Line2D:
    """A variant in a legend."""
    return Line2D([], [], color=look.color, marker=look.mark, lw=look.width, mfc=look.face,
                  label=one_line(variant, 30))  # fmt: skip


def _lines(panel: Axes, paths: Mapping[str, Sequence[Path]], looks: Mapping[str, Look]) -> None:
    """A line through the means of each variant's paths, and the paths' own places beside it."""
    for i, (variant, each) in enumerate(paths.items()):
        look = looks[variant]
        places = np.arange(len(each[0]), dtype=float)
        # Variants stand side by side, so that equal ones do not hide one another.
        places += 0.035 * (i - (len(paths) - 1) / 2)
        for path in each if len(each) > 1 else ():
            panel.plot(places, path, look.mark, ms=2.2, color=look.color, alpha=0.4, mew=0)
        panel.plot(places, np.mean(each, axis=0), marker=look.mark, ms=4, lw=look.width,
                   color=look.color, mfc=look.face, zorder=3)  # fmt: skip


def _stages(panel: Axes, names: Sequence[str]) -> None:
    panel.set_xticks(range(len(names)), [one_line(name, 12) for name in names])
    panel.grid(axis="x", visible=False)
    panel.margins(x=0.07)


def _legend(figure: Figure, variants: Iterable[str], looks: Mapping[str, Look]) -> None:
    legend_below(figure, [handle(variant, looks[variant]) for variant in variants])
