"""Figure 2 for any sweep with strengths."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from raycib.report.figures import (
    GREY,
    MARKS,
    MOST_MARKS,
    PAGE,
    PALETTE,
    new_figure,
    say_nothing,
)
from raycib.report.forms import share
from raycib.report.frame import PLAIN, strength_series
from raycib.report.labels import Labels
from raycib.report.statistics import pearson
from raycib.report.text import one_line

INFORMATION = "I(Z;C), nats"
MOST_SEEDS = 3
"""Of which a panel names each correlation; of more it has room for the ends and the median."""
Response = tuple[str, pd.DataFrame]


def figure2(frame: pd.DataFrame, aligned: Mapping[str, Any]) -> Figure:
    """(a) I(Z;C) against λ; (b) HRR against λ; (c) HRR against I(Z;C); (d) the same with I taken
    at the last prompt token, where that was measured.

    Small marks are cells, with Wilson's 95 % interval where they have one; lines join means over
    seeds. Correlations are within a series and seed, over λ > 0, as in the paper.
    """
    responses = list(strength_series(frame))[: len(PALETTE)]
    last = "mutual_information_last_prompt"
    wide = frame[last].notna().any()
    room = {"w_pad": 0.05, "h_pad": 0.05, "wspace": 0.04, "hspace": 0.04}
    with new_figure(PAGE, 5 if wide else 2.4, **room) as figure:
        panels: Sequence[Axes] = figure.subplots(*((2, 2) if wide else (1, 3))).ravel()
        for panel, letter in zip(panels, "abcd", strict=False):
            panel.set_title(f"({letter})")
        if not responses:
            for panel in panels:
                say_nothing(panel, "no strengths to compare")
            return figure
        _against_strength(panels[0], responses, "mutual_information", INFORMATION)
        _reference_lines(panels[0], frame, aligned)
        panels[0].set_title("(a)  I(Z;C) against λ")
        _against_strength(panels[1], responses, "hrr", "Harmful response rate")
        _hrr_axis(panels[1], frame)
        if aligned.get("hrr") is not None:
            note = f"before fine-tuning {share(aligned['hrr'])}"
            _level(panels[1], aligned["hrr"], note)
        panels[1].set_title("(b)  Harmful answers against λ")
        _scatter(panels[2], responses, "mutual_information", INFORMATION, frame)
        panels[2].set_title("(c)  Harmful answers against I(Z;C)")
        if wide:
            _scatter(panels[3], responses, last, "I(Z;C) at the last prompt token, nats", frame)
            panels[3].set_title("(d)  The same, at the last prompt token")
        return figure


def _against_strength(panel: Axes, responses: Sequence[Response], column: str, label: str) -> None:
    strengths = sorted({strength for _, cells in responses for strength in cells["strength"]})
    positive = [strength for strength in strengths if strength > 0]
    plain = any((cells["method"] == PLAIN).any() for _, cells in responses)
    logarithmic = positive and positive[-1] / positive[0] > 30
    step = (strengths[-1] - strengths[0]) / 90
    names: list[tuple[float, float, str, str]] = []
    for index, (name, cells) in enumerate(responses):
        color, mark = PALETTE[index], MARKS[index]
        seeds = sorted(cells["seed"].unique())
        # Seeds stand side by side so that their intervals do not hide one another.
        apart = 0.0 if logarithmic else min(step, 4 * step / len(seeds))
        places = cells["seed"].map({seed: place for place, seed in enumerate(seeds)})
        x = cells["strength"] + apart * (places - (len(seeds) - 1) / 2)
        many = len(cells) > MOST_MARKS
        if f"{column}_low" in cells and cells[f"{column}_low"].notna().any():
            ends = cells[f"{column}_low"], cells[f"{column}_high"]
            panel.vlines(x, *ends, color=color, alpha=0.35, lw=0.9, rasterized=many)
        panel.plot(x, cells[column], mark, ms=3, color=color, alpha=0.55, mew=0, rasterized=many)
        means = cells.groupby("strength")[column].mean().dropna()
        panel.plot(means.index, means, color=color, lw=1.4)
        if len(responses) > 1 and len(means):
            names.append((float(means.iloc[-1]), float(means.index[-1]), name, color))
    _names(panel, names)
    if logarithmic:
        panel.set_xscale("symlog", linthresh=positive[0])
    panel.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set(xlabel="λ   (0 = plain LoRA)" if plain else "λ", ylabel=label)


def _names(panel: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Names lines at their ends (height, strength, name, colour), apart where the ends are not."""
    low, high = panel.get_ylim()
    height = -np.inf
    for end, strength, name, color in sorted(ends):
        height = max(end, height + 0.06 * (high - low))
        panel.annotate(
            one_line(name, 24), (strength, height), xytext=(6, -2), textcoords="offset points",
            color=color, annotation_clip=False,
        )  # fmt: skip


def _scatter(
    panel: Axes, responses: Sequence[Response], column: str, label: str, frame: pd.DataFrame
) -> None:
    notes: list[tuple[str, str]] = []
    sizes: set[int] = set()
    places: list[tuple[float, float, str]] = []
    for index, (name, cells) in enumerate(responses):
        color, mark = PALETTE[index], MARKS[index]
        many = len(cells) > MOST_MARKS
        panel.vlines(cells[column], cells["hrr_low"], cells["hrr_high"], color=color, alpha=0.2,
                     lw=0.9, rasterized=many)  # fmt: skip
        panel.plot(cells[column], cells["hrr"], mark, ms=3, color=color, alpha=0.55, mew=0,
                   rasterized=many)  # fmt: skip
        means = cells.groupby("strength")[[column, "hrr"]].mean().dropna()
        panel.plot(means[column], means["hrr"], color=color, lw=0.9, alpha=0.8)
        panel.plot(means[column], means["hrr"], mark, mfc="white", mec=color, mew=1.2)
        # Among several series, the ends of the strengths say which way each one runs.
        others = means[means.index > 0]
        named = means if len(responses) == 1 else others.iloc[[0, -1][: len(others)]]
        named = named.dropna()
        places += [(float(x), float(y), f"λ {strength:g}") for strength, x, y in named.itertuples()]
        positive = cells.loc[cells["strength"] > 0, ["seed", column, "hrr"]]
        each = [pearson(part[column], part["hrr"]) for _, part in positive.groupby("seed")]
        found = [c for c in each if c.r is not None]
        if found:
            head = f"{one_line(name, 20)}: " if len(responses) > 1 else ""
            notes.append((f"{head}{_values([c.r or 0.0 for c in found])}", color))
            sizes |= {c.n for c in found}
    if sizes:
        size = " to ".join(f"{n}" for n in sorted({min(sizes), max(sizes)}))
        notes.insert(0, (f"r by seed over λ > 0 (n = {size}):", GREY))
    panel.set(xlabel=label, ylabel="Harmful response rate")
    panel.margins(x=0.12)
    panel.xaxis.set_major_locator(MaxNLocator(6))
    _hrr_axis(panel, frame, lines=len(notes))
    labels = Labels(panel)
    for line, (note, color) in enumerate(notes):
        panel.annotate(
            note, (0, 1), xycoords="axes fraction", xytext=(5, -1 - 9 * line),
            textcoords="offset points", va="top", color=color,
        ).set_in_layout(False)  # fmt: skip
        labels.take(note, 0.02, 1 - 0.07 * line)
    for x, y, text in places:
        labels.beside(x, y, text, "#333333")


def _values(found: Sequence[float]) -> str:
    """Each correlation, or of many the ends and the median."""
    few, rising = len(found) <= MOST_SEEDS, sorted(found)
    shown = found if few else (rising[0], rising[-1], rising[len(rising) // 2])
    said = [f"{r:+z.2f}".replace("-", "−") for r in shown]
    return ", ".join(said) if few else "{} to {}, median {} of {}".format(*said, len(found))


def _hrr_axis(panel: Axes, frame: pd.DataFrame, lines: int = 1) -> None:
    """Shares from 0, with room above the data for ``lines`` of notes."""
    top = np.nanmax([*frame["hrr_high"].dropna(), *frame["hrr"].dropna(), 0.05])
    panel.set_ylim(-0.02 * top, (1.11 + 0.07 * lines) * top)
    panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panel.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))


def _reference_lines(panel: Axes, frame: pd.DataFrame, aligned: Mapping[str, Any]) -> None:
    """I(Z;C) before fine-tuning and its ceiling, of each task where they differ."""
    levels = _by_task(frame, "mutual_information_before")
    if not levels and (value := aligned.get("mutual_information")) is not None:
        levels = {"": value}
    for task, before in levels.items():
        low, high = panel.get_ylim()
        margin = 0.08 * (high - low)
        panel.set_ylim(min(low, before - margin), max(high, before + margin))
        _level(panel, before, f"before fine-tuning{task} {before:z.2f}")
    above = []
    for task, ceiling in _by_task(frame, "mutual_information_ceiling").items():
        if ceiling <= panel.get_ylim()[1]:
            _level(panel, ceiling, f"ceiling{task} {ceiling:z.2f}")
        else:
            above.append(f"ceiling{task} {ceiling:z.2f}")
    if above:
        low, high = panel.get_ylim()
        panel.set_ylim(low, high + 0.1 * (high - low))
        panel.annotate(
            f"↑ {', '.join(above)}", (1, 1), xycoords="axes fraction", xytext=(-2, -2),
            textcoords="offset points", ha="right", va="top", color=GREY,
        )  # fmt: skip


def _by_task(frame: pd.DataFrame, column: str) -> dict[str, float]:
    """What all cells of a task have alike, by ", TASK"; by "" where it is one for all tasks."""
    known = frame.dropna(subset=[column]).groupby(["model", "task"], sort=False)[column].first()
    if known.nunique() == 1:
        return {"": float(known.iloc[0])}
    several = frame["model"].nunique() > 1
    return {
        f", {one_line(f'{model}, {task}' if several else task, 24)}": float(value)
        for (model, task), value in known.items()
    }


def _level(panel: Axes, value: float, label: str) -> None:
    """A dashed line at ``value``, with its name."""
    panel.axhline(value, color=GREY, lw=0.9, ls=(0, (4, 3)), zorder=1)
    Labels(panel).along(value, label, GREY)
