"""Figures 1 and 2 of the trade-offs paper, for any sweep of gaps.

Methods have the colours of ``tradeoff``, proxies shades of Case I's, tasks those of ``figures``;
whatever has a colour has a mark as well. Bars are 95 % intervals.
"""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from raycib.report.figures import (
    COLORS,
    DASHES,
    FRONT,
    GREY,
    MARKS,
    PAGE,
    PALETTE,
    legend_below,
    method_colors,
    new_figure,
    shades,
)  # fmt: skip
from raycib.report.text import one_line
from raycib.report.variants import CIB, ResultRow, plain_variant
from raycib.studies.tradeoff.axes import gap_scale, log_scale, mark_handle
from raycib.studies.tradeoff.gap import (
    ALIGNMENT,
    BALL,
    CASE1,
    PENALTY,
    Gap,
    Place,
    gap,
    lines,
    places,
    proxy_of,
)  # fmt: skip
from raycib.studies.tradeoff.plane import SAFETY, Line, draw_line, handle_of, plane, reach
from raycib.studies.tradeoff.table import before_capability
from raycib.studies.tradeoff.theory import Theory, by_similarity

ROOM = {"w_pad": 0.05, "h_pad": 0.05, "wspace": 0.03}


def figure1(frame: pd.DataFrame, theory: Theory | None) -> Figure | None:
    """(a) The alignment gap against λ, a line for each proxy, in the task that has most of them;
    (b) alignment against capability gap for the most similar proxy, a line for each task.

    None where Case I has neither several proxies nor several tasks.
    """
    found = [place for place in places(frame) if lines(place[2], CASE1)]
    most = max(found, key=lambda place: len(lines(place[2], CASE1)), default=None)
    if most is None or (len(found) < 2 and len(lines(most[2], CASE1)) < 2):
        return None
    with new_figure(PAGE, 3.4, **ROOM) as figure:
        left, right = figure.subplots(1, 2)
        _lines(left, most, _proxies(most[2], theory), len(found) > 1)
        first = {
            place: next(iter(_proxies(variants, theory).values())) for place, _, variants in found
        }
        drawn = [
            Line(first[place], place, PALETTE[i % len(PALETTE)], MARKS[i % len(MARKS)])
            for i, (place, _, _) in enumerate(found)
        ]
        plane(right, drawn, [plain_variant(variants) for _, _, variants in found])
        proxies = list(dict.fromkeys(line[0].series for line in first.values()))
        named = f", {proxies[0].split(', ', 1)[-1]}" if len(proxies) == 1 else ""
        right.set_title(f"(b)  Both gaps in Case I{one_line(named, 26)}")
        handles = [handle_of(line) for line in drawn]
        handles.append(mark_handle(GREY, "*", "plain LoRA of the task", ms=7))
        legend_below(right, handles)
        return figure


def figure2(frame: pd.DataFrame, theory: Theory | None) -> Figure | None:
    """(a) The alignment gap against the achieved distance, for Case II in each task; (b) every
    method on the plane of both gaps, in the task that has most, with the Pareto front.

    None without Case II.
    """
    every = list(places(frame))
    found = [place for place in every if lines(place[2], PENALTY, BALL)]
    if not found:
        return None
    with new_figure(PAGE, 3.4, **ROOM) as figure:
        left, right = figure.subplots(1, 2)
        _distances(left, found)
        methods = (CASE1, PENALTY, BALL, CIB)
        place, task, variants = max(found, key=lambda p: len(lines(p[2], *methods)))
        drawn = _methods(frame, variants)
        lora = plain_variant(variants)
        before = before_capability(theory, task, lora) if theory and lora else math.nan
        plane(right, drawn, [lora], before, with_front=True)
        tail = f", {one_line(place, 24)}" if len(every) > 1 else ""
        right.set_title(f"(b)  Both gaps{tail}")
        handles = [handle_of(line) for line in drawn]
        handles.append(mark_handle(COLORS["lora"], "*", "plain LoRA", ms=7))
        if math.isfinite(before):
            handles.append(mark_handle(GREY, "d", "before fine-tuning"))
        handles.append(Line2D([], [], color=FRONT, label="Pareto front"))
        legend_below(right, handles)
        return figure


def _lines(panel: Axes, place: Place, found: Mapping[str, list[ResultRow]], several: bool) -> None:
    """Lines of alignment gaps over λ, with plain LoRA's as a level."""
    name, _, variants = place
    heights: list[float] = [0.0]
    handles = []
    colors = shades(COLORS[CASE1], len(found))  # dark: most similar
    for i, (series, mine) in enumerate(found.items()):
        label = one_line(proxy_of(mine[0]) or series, 34)
        line = Line(mine, label, colors[-1 - i], MARKS[i % len(MARKS)])
        x = [Gap(variant.strength) for variant in mine]
        y = [gap(variant.done, ALIGNMENT) for variant in mine]
        draw_line(panel, line, x, y)
        heights += reach(y)
        handles.append(handle_of(line))
    strengths = sorted({variant.strength for mine in found.values() for variant in mine})
    lora = plain_variant(variants)
    level = lora.mean(ALIGNMENT) if lora else math.nan
    if math.isfinite(level):
        panel.axhline(level, color=COLORS["lora"], ls=DASHES, zorder=1)
        label = f"plain LoRA (λ = 0): {level:.3g}"
        handles.append(Line2D([], [], color=COLORS["lora"], ls=DASHES, label=label))
    gap_scale(panel, "y", [*heights, level])
    panel.axhline(0, color=GREY, lw=0.8, zorder=1)
    panel.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
    panel.margins(x=0.06)
    panel.set(xlabel="λ", ylabel=SAFETY)
    tail = f", {one_line(name, 24)}" if several else ""
    what = "safety data" if len(found) > 1 else "strength in Case I"
    panel.set_title(f"(a)  Alignment gap by {what}{tail}")
    legend_below(panel, handles)


def _distances(panel: Axes, found: Sequence[Place]) -> None:
    """Case II's alignment gaps over the distance achieved; plain LoRA as a star."""
    across: list[float] = []
    heights: list[float] = [0.0]
    handles = []
    forms = {PENALTY: ("-", True), BALL: (DASHES, False)}
    for i, (name, _, variants) in enumerate(found):
        color, mark = PALETTE[i % len(PALETTE)], MARKS[i % len(MARKS)]
        handles.append(mark_handle(color, mark, one_line(name, 34)))
        for method, (dashes, filled) in forms.items():
            for mine in lines(variants, method).values():
                line = Line(mine, name, color, mark, dashes, filled)
                places_ = sorted(
                    (variant.mean("distance"), variant) for variant in mine if _far(variant)
                )
                x = [Gap(distance) for distance, _ in places_]
                y = [gap(variant.done, ALIGNMENT) for _, variant in places_]
                draw_line(panel, line, x, y)
                across += [g.value for g in x]
                heights += reach(y)
        if (lora := plain_variant(variants)) and _far(lora):
            panel.plot(lora.mean("distance"), lora.mean(ALIGNMENT), "*", ms=8, color=color,
                       mec="white", mew=0.5, zorder=4)  # fmt: skip
            across.append(lora.mean("distance"))
            heights.append(lora.mean(ALIGNMENT))
    log_scale(panel, across)
    gap_scale(panel, "y", heights)
    panel.axhline(0, color=GREY, lw=0.8, zorder=1)
    panel.set(xlabel="Distance from the aligned weights, Frobenius norm", ylabel=SAFETY)
    panel.set_title("(a)  Alignment gap by distance in Case II")
    handles += [
        Line2D([], [], color=GREY, marker="o", label="penalty λ ‖ΔW‖²"),
        Line2D([], [], color=GREY, marker="o", mfc="white", ls=DASHES, label="ball ‖ΔW‖ ≤ ε"),
        mark_handle(GREY, "*", "plain LoRA", ms=7),
    ]
    legend_below(panel, handles)


def _methods(frame: pd.DataFrame, variants: Sequence[ResultRow]) -> list[Line]:
    """A line for each series of every method but plain LoRA."""
    colors = method_colors(frame["method"])
    drawn: list[Line] = []
    for kind in dict.fromkeys(variant.method for variant in variants if not variant.plain):
        for series, mine in lines(variants, kind).items():
            mark, dashes = MARKS[len(drawn) % len(MARKS)], DASHES if kind == BALL else "-"
            drawn.append(Line(mine, series, colors[kind], mark, dashes))
    return drawn


def _proxies(variants: Sequence[ResultRow], theory: Theory | None) -> dict[str, list[ResultRow]]:
    """Case I's lines, from the safety data most like the original ones to the least, as far as
    that is known."""
    order = [proxy.name for proxy in by_similarity(theory.proxies)] if theory else []
    found = lines(variants, CASE1).items()
    rank = {name: place for place, name in enumerate(order)}
    return dict(sorted(found, key=lambda item: rank.get(proxy_of(item[1][0]), len(order))))


def _far(variant: ResultRow) -> bool:
    return variant.mean("distance") > 0 and math.isfinite(variant.mean(ALIGNMENT))
