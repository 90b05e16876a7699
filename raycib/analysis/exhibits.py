"""The tables and figures of a sweep, by what it asks; each is drawn once, for files and page."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from raycib.analysis import matched_cost, paired, table1, tables
from raycib.analysis.arms import arms, settings
from raycib.analysis.bars import bars
from raycib.analysis.comparison import Samples
from raycib.analysis.figures import figure2, to_svg
from raycib.analysis.frame import aligned_scores, kind_of, to_frame
from raycib.analysis.text import plain
from raycib.analysis.tradeoff import tradeoff


class Table(NamedTuple):
    """A table as numbers (.csv), for people (.md, page) and, where that is too wide, for paper."""

    data: pd.DataFrame
    shown: pd.DataFrame
    caption: str
    paper: pd.DataFrame | None = None


class Drawing(NamedTuple):
    """A figure and its SVG, and what it is in words."""

    figure: Figure
    svg: bytes
    label: str


class Exhibits(NamedTuple):
    """Tables and drawings by the stems of their files."""

    tables: dict[str, Table]
    drawings: dict[str, Drawing]


def exhibits(summary: Mapping[str, Any], samples: Samples) -> Exhibits:
    """What a sweep of this kind shows. Dose: Table 3 and Figure 2. Comparison: Table 1, matched
    cost, pairs and the trade-off. Ablation: the same, and Figure 3's bars."""
    frame, aligned = to_frame(summary), aligned_scores(summary)
    question = plain(summary.get("question") or summary["sweep"])
    kind = kind_of(summary)
    if kind == "dose":
        found = tables.table3(frame, aligned)
        caption = f"{question} Mean ± sample standard deviation (ddof = 1) over seeds."
        table3 = Table(found, tables.presentable(found), caption)
        drawing = _drawing(figure2(frame, aligned), "Figure 2 for this sweep")
        return Exhibits({"table3": table3}, {"figure2": drawing})
    rows = table1.table1(frame, aligned)
    cost = matched_cost.matched_cost(frame)
    pairs = paired.paired_table(frame, samples)
    caption = f"{paired.CAPTION} {paired.significance(pairs)}".strip()
    before = aligned.get("hrr")
    drawings = {
        "tradeoff": _drawing(tradeoff(frame, before), "Harmful answers against their price")
    }
    if kind == "ablation":
        drawings |= {"bars": _drawing(bars(frame, before), "Harmful response rates by row")}
    return Exhibits(
        {
            "table1": Table(
                rows, table1.presentable1(rows), f"{question} {table1.CAPTION}",
                table1.narrow1(rows),
            ),
            "matched_cost": Table(cost, matched_cost.presentable_cost(cost), matched_cost.CAPTION),
            "paired": Table(pairs, paired.presentable_pairs(pairs), caption),
        },
        drawings,
    )  # fmt: skip


def terminal_table(summary: Mapping[str, Any]) -> str:
    """The sweep's main table as plain text: Table 3, or Table 1 with its failed cells below."""
    frame, aligned = to_frame(summary), aligned_scores(summary)
    if kind_of(summary) == "dose":
        return tables.to_terminal(tables.presentable(tables.table3(frame, aligned)))
    rows = table1.table1(frame, aligned)
    return "\n".join([tables.to_terminal(table1.narrow1(rows)), *table1.failures(rows)])


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with the name of each cell's arm as ``arm``, in the order of the tables."""
    parts = []
    for _, part in settings(frame):
        for arm in arms(part):
            cells = pd.concat([arm.done, arm.failed]).sort_values("seed")
            parts.append(cells.assign(arm=arm.name))
    return pd.concat(parts) if parts else frame.assign(arm="")


def _drawing(figure: Figure, label: str) -> Drawing:
    return Drawing(figure, to_svg(figure), label)
