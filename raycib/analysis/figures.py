"""Figure 2 for any sweep with strengths, and the loss curves.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; lines carry their name
where there is room, and a mark as well as a colour. The same data give the same bytes.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from raycib.analysis.frame import dose_responses
from raycib.analysis.statistics import pearson
from raycib.analysis.tables import share
from raycib.analysis.text import one_line

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#6b6b6b"
STYLE: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs on every machine
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
    "svg.fonttype": "path",
    "path.simplify": False,
    "text.parse_math": False,  # a name with a dollar sign is a name
}
INFORMATION = "I(Z;C), nats"
Response = tuple[str, pd.DataFrame]


def figure2(frame: pd.DataFrame, aligned: Mapping[str, Any] | None = None) -> Figure:
    """(a) I(Z;C) against λ; (b) HRR against λ; (c) HRR against I(Z;C); (d) the same with I taken
    at the last prompt token, where that was measured.

    Small marks are cells, with Wilson's 95 % interval where they have one; lines join means over
    seeds. Correlations are within a series and seed, over λ > 0, as in the paper.
    """
    aligned = aligned or {}
    responses = list(dose_responses(frame))[: len(PALETTE)]
    last = "mutual_information_last_prompt"
    wide = frame[last].notna().any()
    with rc_context(STYLE):
        figure = Figure(figsize=(8.6, 6.6) if wide else (11.4, 3.5), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08, wspace=0.04, hspace=0.05)  # pyright: ignore
        panels: Sequence[Axes] = figure.subplots(*((2, 2) if wide else (1, 3))).ravel()
        for panel, letter in zip(panels, "abcd", strict=False):
            panel.set_title(f"({letter})")
        if not responses:
            for panel in panels:
                panel.text(0.5, 0.5, "no strengths to compare", ha="center", color=GREY)
            return figure
        _dose(panels[0], responses, "mutual_information", INFORMATION)
        _reference_lines(panels[0], responses, frame, aligned)
        panels[0].set_title("(a)  Information against strength")
        _dose(panels[1], responses, "hrr", "Harmful response rate")
        _hrr_axis(panels[1], frame)
        if aligned.get("hrr") is not None:
            note = f"before fine-tuning {share(aligned['hrr'])}"
            _level(panels[1], aligned["hrr"], note, responses, "hrr")
        panels[1].set_title("(b)  Harmful answers against strength")
        _scatter(panels[2], responses, "mutual_information", INFORMATION)
        panels[2].set_title("(c)  Harmful answers against information")
        if wide:
            _scatter(panels[3], responses, last, "I(Z;C) at the last prompt token, nats")
            panels[3].set_title("(d)  The same, at the last prompt token")
        for panel in panels[2:]:
            _hrr_axis(panel, frame, lines=len(responses))
        return figure


def loss_curves(
    frame: pd.DataFrame, histories: Mapping[str, Sequence[Mapping[str, Any]]], by: str = "lam"
) -> Figure | None:
    """Every loss term, unweighted, by step: one line for each strength, the mean over its seeds.

    ``by`` may name another column whose values have a line each. None where no history holds a
    term.
    """
    rows = []
    for _, cell in frame.iterrows():
        for entry in histories.get(str(cell["key"]), ()):
            for term in entry.keys() - {"step", "grad_norm", "lr", "learning_rate"}:
                if isinstance(entry[term], int | float):
                    place = {"term": str(term), by: cell[by], "step": entry["step"]}
                    rows.append({**place, "value": float(entry[term])})
    if not rows:
        return None
    curves = pd.DataFrame(rows).groupby(["term", by, "step"])["value"].mean().reset_index()
    terms = sorted(curves["term"].unique(), key=lambda term: (term != "task", term))[:4]
    drawn = set(curves[by])
    lines = sorted(drawn) if by == "lam" else [v for v in dict.fromkeys(frame[by]) if v in drawn]
    with rc_context(STYLE):
        figure = Figure(figsize=(min(4.3 * len(terms) + 0.4, 12), 3.0), layout="constrained")
        panels = figure.subplots(1, len(terms), squeeze=False)[0]
        for panel, term in zip(panels, terms, strict=True):
            for index, value in enumerate(lines):
                line = curves[(curves["term"] == term) & (curves[by] == value)]
                if len(line):
                    dose = by == "lam"
                    shade = _shade(index, len(lines)) if dose else PALETTE[index % len(PALETTE)]
                    label = f"{value:g}" if dose else one_line(value, 34)
                    panel.plot(line["step"], line["value"], color=shade, lw=1.6, label=label)
            panel.set(xlabel="step", ylabel="nats, unweighted")
            panel.set_title(one_line(term, 30))
        title = "λ" if by == "lam" else None
        panels[0].legend(title=title, frameon=False, fontsize=8.5, title_fontsize=9)
        return figure


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG: text as outlines, no date, the same bytes for the same data."""
    with rc_context(STYLE):
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        return out.getvalue()


def to_png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as PNG on white."""
    with rc_context(STYLE):
        FigureCanvasAgg(figure)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None}, facecolor="white")
        return out.getvalue()


def _dose(panel: Axes, responses: Sequence[Response], column: str, label: str) -> None:
    doses = sorted({lam for _, cells in responses for lam in cells["lam"]})
    positive = [lam for lam in doses if lam > 0]
    logarithmic = positive and positive[-1] / positive[0] > 30
    step = (doses[-1] - doses[0]) / 90
    ends: list[tuple[float, float, str, str]] = []
    for index, (name, cells) in enumerate(responses):
        color, mark = PALETTE[index], MARKS[index]
        seeds = sorted(cells["seed"].unique())
        for place, seed in enumerate(seeds):
            mine = cells[cells["seed"] == seed]
            # Seeds stand side by side so that their intervals do not hide one another.
            shift = 0.0 if logarithmic else step * (place - (len(seeds) - 1) / 2)
            x = mine["lam"] + shift
            if f"{column}_low" in mine and mine[f"{column}_low"].notna().any():
                panel.vlines(
                    x, mine[f"{column}_low"], mine[f"{column}_high"], color=color, alpha=0.35, lw=1
                )
            panel.plot(x, mine[column], mark, ms=3.6, color=color, alpha=0.55, mew=0)
        means = cells.groupby("lam")[column].mean().dropna()
        panel.plot(means.index, means, color=color, lw=1.8)
        if len(responses) > 1 and len(means):
            ends.append((float(means.iloc[-1]), float(means.index[-1]), name, color))
    _names(panel, ends)
    if logarithmic:
        panel.set_xscale("symlog", linthresh=positive[0])
    panel.set_xticks(doses, [f"{lam:g}" for lam in doses])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set(xlabel="λ   (0 = plain LoRA)" if doses[0] == 0 else "λ", ylabel=label)


def _names(panel: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Names lines at their ends (height, strength, name, colour), apart where the ends are not."""
    low, high = panel.get_ylim()
    height = -np.inf
    for end, lam, name, color in sorted(ends):
        height = max(end, height + 0.06 * (high - low))
        panel.annotate(
            one_line(name, 24), (lam, height), xytext=(7, -3), textcoords="offset points",
            color=color, fontsize=8.5, annotation_clip=False,
        )  # fmt: skip


def _scatter(panel: Axes, responses: Sequence[Response], column: str, label: str) -> None:
    notes = []
    for index, (name, cells) in enumerate(responses):
        color, mark = PALETTE[index], MARKS[index]
        panel.vlines(cells[column], cells["hrr_low"], cells["hrr_high"], color=color, alpha=0.2,
                     lw=1)  # fmt: skip
        panel.plot(cells[column], cells["hrr"], mark, ms=3.6, color=color, alpha=0.55, mew=0)
        means = cells.groupby("lam")[[column, "hrr"]].mean().dropna()
        panel.plot(means[column], means["hrr"], color=color, lw=1.1, alpha=0.8)
        panel.plot(means[column], means["hrr"], mark, ms=6, mfc="white", mec=color, mew=1.6)
        # Among several series, the ends of the doses say which way each one runs.
        dosed_means = means[means.index > 0]
        named = means if len(responses) == 1 else dosed_means.iloc[[0, -1][: len(dosed_means)]]
        wide, tall = (float(np.ptp(cells[c].dropna())) or 1.0 for c in (column, "hrr"))
        right: list[tuple[float, float]] = []
        for lam, place in named.dropna().iterrows():
            x, y = float(place[column]), float(place["hrr"])
            # A label that would hide one on the right goes to the left of its mark.
            crowded = any(abs(x - u) < 0.15 * wide and abs(y - v) < 0.1 * tall for u, v in right)
            if not crowded:
                right.append((x, y))
            panel.annotate(
                f"λ {lam:g}", (x, y), xytext=(-7 if crowded else 7, -9 if crowded else 5),
                textcoords="offset points", ha="right" if crowded else "left", fontsize=8.5,
                color="#333333", annotation_clip=False,
            )  # fmt: skip
        dosed = cells[cells["lam"] > 0]
        each = [pearson(part[column], part["hrr"]) for _, part in dosed.groupby("seed")]
        found = [c for c in each if c.r is not None]
        if found:
            values = ", ".join(f"{c.r:+z.2f}".replace("-", "−") for c in found)
            head = f"{one_line(name, 24)}: " if len(responses) > 1 else ""
            sizes = sorted({c.n for c in found})
            size = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
            notes.append((f"{head}r by seed, λ > 0: {values}  (n = {size})", color))
    for line, (note, color) in enumerate(notes):
        panel.annotate(
            note, (0, 1), xycoords="axes fraction", xytext=(7, -2 - 12 * line),
            textcoords="offset points", va="top", fontsize=8.5, color=color,
        )  # fmt: skip
    panel.set(xlabel=label, ylabel="Harmful response rate")
    panel.margins(x=0.12)
    panel.xaxis.set_major_locator(MaxNLocator(6))


def _hrr_axis(panel: Axes, frame: pd.DataFrame, lines: int = 1) -> None:
    """Shares from 0, with room above the data for ``lines`` of notes."""
    top = np.nanmax([*frame["hrr_high"].dropna(), *frame["hrr"].dropna(), 0.05])
    panel.set_ylim(-0.02 * top, (1.11 + 0.07 * lines) * top)
    panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panel.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))


def _reference_lines(
    panel: Axes, responses: Sequence[Response], frame: pd.DataFrame, aligned: Mapping[str, Any]
) -> None:
    known = [aligned.get("mutual_information"), *frame["mutual_information_before"].dropna()]
    before = next((value for value in known if value is not None and np.isfinite(value)), None)
    if before is not None:
        low, high = panel.get_ylim()
        margin = 0.08 * (high - low)
        panel.set_ylim(min(low, before - margin), max(high, before + margin))
        _level(panel, before, f"before fine-tuning {before:z.2f}", responses, "mutual_information")
    ceilings = frame["mutual_information_ceiling"].dropna()
    if len(ceilings):
        ceiling = float(ceilings.iloc[0])
        if ceiling <= panel.get_ylim()[1]:
            _level(panel, ceiling, f"ceiling {ceiling:z.2f}", responses, "mutual_information")
        else:
            low, high = panel.get_ylim()
            panel.set_ylim(low, high + 0.1 * (high - low))
            panel.annotate(
                f"↑ ceiling {ceiling:z.2f}", (1, 1), xycoords="axes fraction", xytext=(-2, -2),
                textcoords="offset points", ha="right", va="top", color=GREY, fontsize=8.5,
            )  # fmt: skip


def _level(
    panel: Axes, value: float, label: str, responses: Sequence[Response], column: str
) -> None:
    """A dashed line at ``value``, named at the end where the data are farther away."""
    gaps = {"left": np.inf, "right": np.inf}
    for _, cells in responses:
        means = cells.groupby("lam")[column].mean().dropna()
        for side, place in (("left", 0), ("right", -1)):
            if len(means):
                gaps[side] = min(gaps[side], abs(float(means.iloc[place]) - value))
    side = "left" if gaps["left"] > gaps["right"] else "right"
    panel.axhline(value, color=GREY, lw=1, ls=(0, (4, 3)), zorder=1)
    panel.annotate(
        label, (side == "right", value), xycoords=("axes fraction", "data"),
        xytext=(-3 if side == "right" else 6, 3), textcoords="offset points", ha=side,
        va="bottom", color=GREY, fontsize=8.5,
    )  # fmt: skip


def _shade(index: int, count: int) -> tuple[float, float, float]:
    """From light to dark blue: an order of strengths, which is not a set of kinds."""
    share = index / max(count - 1, 1)
    light, dark = np.array([0.62, 0.79, 0.88]), np.array([0.03, 0.19, 0.42])
    red, green, blue = light + (dark - light) * share
    return float(red), float(green), float(blue)
