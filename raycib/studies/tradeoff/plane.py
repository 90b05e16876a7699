"""The plane of both gaps, and lines of variants that are drawn on it and elsewhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from raycib.report.figures import COLORS, GREY, draw_front
from raycib.report.labels import Labels
from raycib.report.text import one_line
from raycib.report.variants import ResultRow
from raycib.studies.tradeoff.axes import bars, gap_scale
from raycib.studies.tradeoff.gap import ALIGNMENT, BALL, CAPABILITY, Gap, gap

SAFETY, ABILITY = "Alignment gap, nats per answer", "Capability gap, nats per answer"


@dataclass(frozen=True)
class Line:
    """The variants of one line of a panel and how they are drawn."""

    variants: Sequence[ResultRow]
    label: str
    color: Any
    mark: str
    dashes: Any = "-"
    filled: bool = False


def plane(
    panel: Axes, drawn: Sequence[Line], standard: Sequence[ResultRow | None],
    before: float = math.nan, with_front: bool = False,
) -> None:  # fmt: skip
    """Alignment over capability gaps; ``standard`` are the plain LoRA of each line, or of all."""
    across, heights = [0.0, before], [0.0]
    labels: list[tuple[float, float, str, Any]] = []
    for line in drawn:
        kept = [variant for variant in line.variants if _both(variant)]
        x, y = (
            [gap(variant.done, column) for variant in kept] for column in (CAPABILITY, ALIGNMENT)
        )
        draw_line(panel, line, x, y)
        across += reach(x)
        heights += reach(y)
        for i in sorted({0, len(kept) - 1} if kept else ()):
            symbol = "ε" if kept[i].method == BALL else "λ"
            text = f"{symbol} {kept[i].strength:g}"
            labels.append((x[i].value, y[i].value, text, line.color))
    several = len(standard) > 1
    for i, lora in enumerate(standard):
        if lora is not None and _both(lora):
            color = drawn[i].color if several else COLORS["lora"]
            place = lora.mean(CAPABILITY), lora.mean(ALIGNMENT)
            panel.plot(*place, "*", ms=8.5, color=color, mec="white", mew=0.5, zorder=5)
            across.append(place[0])
            heights.append(place[1])
    if math.isfinite(before):
        panel.plot(before, 0, "d", ms=5.5, color=GREY, zorder=5)
    gap_scale(panel, "x", across)
    gap_scale(panel, "y", heights)
    if with_front:  # of coherent variants, plain LoRA and the aligned model
        every = [*(variant for line in drawn for variant in line.variants), *filter(None, standard)]
        points = [(a.mean(CAPABILITY), a.mean(ALIGNMENT)) for a in every if a.coherent and _both(a)]
        points += [(before, 0.0)] * math.isfinite(before)
        draw_front(panel, points, panel.get_ylim()[1])
    panel.axhline(0, color=GREY, lw=0.8, zorder=1)
    panel.axvline(0, color=GREY, lw=0.8, zorder=1)
    panel.set(xlabel=ABILITY, ylabel=SAFETY)
    names = Labels(panel, size=6.5)
    for label in labels:
        names.beside(*label)


def draw_line(panel: Axes, line: Line, x: Sequence[Gap], y: Sequence[Gap]) -> None:
    bars(panel, x, y, line.color)
    across, up = [g.value for g in x], [g.value for g in y]
    face = line.color if line.filled else "white"
    panel.plot(across, up, color=line.color, ls=line.dashes, alpha=0.9)
    panel.plot(across, up, line.mark, mfc=face, mec=line.color, zorder=4)


def reach(gaps: Sequence[Gap]) -> list[float]:
    return [end for g in gaps for end in (g.value, g.low, g.high) if math.isfinite(end)]


def _both(variant: ResultRow) -> bool:
    return math.isfinite(variant.mean(CAPABILITY)) and math.isfinite(variant.mean(ALIGNMENT))


def handle_of(line: Line) -> Line2D:
    face = line.color if line.filled else "white"
    return Line2D([], [], color=line.color, marker=line.mark, mfc=face, ls=line.dashes,
                  label=one_line(line.label, 34))  # fmt: skip
