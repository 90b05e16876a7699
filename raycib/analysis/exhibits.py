"""The tables and figures of a sweep, by what it asks; each is drawn once, for files and page."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from raycib.analysis import tables
from raycib.analysis.arms import arms, settings
from raycib.analysis.comparison import matched_cost, paired, table1
from raycib.analysis.comparison.bars import bars
from raycib.analysis.comparison.tradeoff import tradeoff
from raycib.analysis.figures import figure2, to_svg
from raycib.analysis.frame import aligned_scores, kind_of, to_frame
from raycib.analysis.gaps import bounds, terms
from raycib.analysis.gaps import figures as gap_figures
from raycib.analysis.gaps import table as gaps_table
from raycib.analysis.gaps.theory import theory_of
from raycib.analysis.orders import figures as order_figures
from raycib.analysis.orders import stage_figures, stage_tables, variance
from raycib.analysis.orders import table as orders_table
from raycib.analysis.orders.sequences import ARROW, stages_frame, study_of
from raycib.analysis.side_by_side import Samples
from raycib.analysis.text import one_line, plain


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


MAIN = ("table3", "table1", "gaps", "orders")
"""The tables that show accuracies of all cells."""


def exhibits(summary: Mapping[str, Any], samples: Samples) -> Exhibits:
    """What a sweep of this kind shows. Dose: Table 3 and Figure 2. Comparison: Table 1, matched
    cost, pairs and the trade-off. Ablation: the same, and Figure 3's bars. Gaps: the gaps, the
    theorems' bounds with what they are made of, the alignment tax, and Figures 1 and 2. Orders:
    methods, each order, the accuracy matrix, the variance, every stage, Figures 4 to 7, safety by
    stage and the spread over orders. Captions of tables say how answers to a person's own tasks
    are scored."""
    made, how = _exhibits(summary, samples), _scoring(summary)
    if not how:
        return made
    said = {
        stem: table._replace(caption=f"{table.caption} {how}")
        for stem, table in made.tables.items()
        if stem in MAIN
    }
    return made._replace(tables=made.tables | said)


def _scoring(summary: Mapping[str, Any]) -> str:
    """How the answers to each set were scored, where a summary says so."""
    parts = [
        f"{one['setting']}: {one['value']}"
        for one in summary.get("settings") or ()
        if str(one["setting"]).startswith("accuracy of ")
    ]
    return one_line("Scored, " + ", ".join(parts) + ".", 2000) if parts else ""


def _exhibits(summary: Mapping[str, Any], samples: Samples) -> Exhibits:
    frame, aligned = to_frame(summary), aligned_scores(summary)
    question = plain(summary.get("question") or summary["sweep"])
    kind = kind_of(summary)
    if kind == "dose":
        found = tables.table3(frame, aligned)
        caption = f"{question} Mean ± sample standard deviation (ddof = 1) over seeds."
        table3 = Table(found, tables.presentable(found), caption)
        drawing = _drawing(figure2(frame, aligned), "Figure 2 for this sweep")
        return Exhibits({"table3": table3}, {"figure2": drawing})
    if kind == "gaps":
        return _gaps(summary, frame, question)
    if kind == "orders":
        return _orders(summary, question)
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


def _gaps(summary: Mapping[str, Any], frame: pd.DataFrame, question: str) -> Exhibits:
    """What was not measured, or not run, has no exhibit."""
    theory = theory_of(summary)
    rows = gaps_table.gaps_table(frame, aligned_scores(summary), theory)
    caption = f"{question} {gaps_table.caption(rows)}"
    shown = gaps_table.presentable_gaps(rows)
    found = {"gaps": Table(rows, shown, caption, gaps_table.narrow_gaps(rows))}
    if theory:
        every = bounds.bounds(frame, theory)
        looseness, data, model = (
            bounds.summary_table(every), terms.data_terms(theory), terms.model_terms(theory)
        )  # fmt: skip
        found |= {
            "bounds_summary": Table(
                looseness, bounds.presentable_summary(looseness), bounds.CAPTION
            ),
            "bounds": Table(every, bounds.presentable_bounds(every), bounds.CAPTION),
            "data_terms": Table(data, terms.presentable_data(data), terms.DATA_CAPTION),
            "model_terms": Table(model, terms.presentable_model(model), terms.MODEL_CAPTION),
        }
    tax = terms.tax_table(frame)
    found["tax"] = Table(tax, terms.presentable_tax(tax), terms.TAX_CAPTION)
    figures = {
        "figure1": (gap_figures.figure1(frame, theory), "Case I: similarity and overlap"),
        "figure2": (gap_figures.figure2(frame, theory), "Case II, and all methods"),
    }
    return Exhibits(
        {stem: table for stem, table in found.items() if len(table.data)},
        {stem: _drawing(figure, label) for stem, (figure, label) in figures.items() if figure},
    )


def _orders(summary: Mapping[str, Any], question: str) -> Exhibits:
    """What needs several orders, or a run that finished, is left out where there is none."""
    study, stages = study_of(summary), stages_frame(summary)
    caption = f"{question} {orders_table.caption(study)} {orders_table.counts_line(summary)}."
    rows, each = orders_table.orders_table(study), orders_table.by_order(study)
    matrix, parts = stage_tables.matrix_table(study), variance.variance_table(study)
    found = {
        "orders": Table(
            rows, orders_table.presentable_orders(rows, study), caption,
            orders_table.narrow_orders(rows),
        ),
        "by_order": Table(each, orders_table.presentable_orders(each, study), caption,
                          orders_table.narrow_orders(each)),
        "accuracy_matrix": Table(
            matrix, stage_tables.presentable_matrix(matrix, study), stage_tables.MATRIX_CAPTION
        ),
        "variance": Table(
            parts, variance.presentable_variance(parts), variance.variance_caption(study)
        ),
        "stages": Table(
            stages, stage_tables.presentable_stages(stages, study), stage_tables.STAGES_CAPTION
        ),
    }  # fmt: skip
    if len(study.orders) == 1:
        del found["by_order"]
    shown = f", {one_line(ARROW.join(study.main.orders[0]), 80)}" * (len(study.orders) > 1)
    figures = {
        "figure4": (stage_figures.figure4(study), f"Accuracy of each task by stage{shown}"),
        "figure5": (stage_figures.figure5(study), f"Accuracy lost at each transition{shown}"),
        "figure6": (order_figures.figure6(study), "Stability"),
        "figure7": (order_figures.figure7(study), "Backward transfer"),
        "safety_by_stage": (stage_figures.safety_by_stage(study), f"Safety by stage{shown}"),
        "spread_over_orders": (order_figures.figure_orders(study), "Spread over orders"),
    }
    return Exhibits(
        {stem: table for stem, table in found.items() if len(table.data)},
        {stem: _drawing(figure, label) for stem, (figure, label) in figures.items() if figure},
    )


def terminal_table(summary: Mapping[str, Any]) -> str:
    """The sweep's main table as plain text: Table 3, or else Table 1, the table of gaps or
    that of orders, with the failed cells below, and how answers to one's own tasks are scored."""
    return "\n".join(filter(None, [_terminal_table(summary), _scoring(summary)]))


def _terminal_table(summary: Mapping[str, Any]) -> str:
    frame, aligned = to_frame(summary), aligned_scores(summary)
    if kind_of(summary) == "dose":
        return tables.to_terminal(tables.presentable(tables.table3(frame, aligned)))
    if kind_of(summary) == "gaps":
        rows = gaps_table.gaps_table(frame, aligned, theory_of(summary))
        shown = tables.to_terminal(gaps_table.narrow_gaps(rows))
        return "\n".join([shown, *gaps_table.failures(rows)])
    if kind_of(summary) == "orders":
        rows = orders_table.orders_table(study_of(summary))
        shown = tables.to_terminal(orders_table.narrow_orders(rows))
        return "\n".join(
            [shown, *orders_table.failures(rows), orders_table.counts_line(summary)]
        )  # fmt: skip
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
