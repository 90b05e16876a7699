"""The report of continual fine-tuning: methods, orders, accuracies by stage, and the variance."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from raycib.counting import count
from raycib.report.claims import Claim
from raycib.report.figures import curves_by_variant
from raycib.report.forms import NOT_MEASURED, in_points, percent, share
from raycib.report.frame import PLAIN
from raycib.report.headline import LONGEST
from raycib.report.report import Drawing, Report, Section
from raycib.report.statistics import Spread
from raycib.report.table import Table
from raycib.report.text import one_line, plain
from raycib.report.variants import named
from raycib.results import Histories, Samples
from raycib.studies.continual import figures, stage_figures, stage_tables, table, variance
from raycib.studies.continual.claims import order_claims
from raycib.studies.continual.results import ContinualResults
from raycib.studies.continual.sequences import (
    ARROW,
    Sequences,
    chained,
    over_seeds,
    sequence_frame,
    sequences_of,
    stages_frame,
)  # fmt: skip
from raycib.studies.continual.table import counts_line, stage_names
from raycib.studies.continual.warnings import warnings

LINES = "Lines: means over seeds; small marks: seeds."
FIGURES = {
    "safety_by_stage": "{0}. " + LINES + " What is neither harmful nor a refusal is incoherent.",
    "figure4": "Figure 4 for this sweep: {0}. "
    + LINES
    + " Shaded: the stage that trained the panel's task.",
    "figure5": "Figure 5 for this sweep: {0}, in points, mean over seeds; each column is a "
    "transition to the next stage. Positive (red): forgetting; negative (blue): the next stage "
    "helped.",
    "figure7": "Figure 7 for this sweep: backward transfer (Eq. 26). Bars: means over seeds "
    "(dots).",
    "figure6": "Figure 6 for this sweep: the population standard deviation (ddof = 0) of a task's "
    "accuracy over the stages from its own on.",
    "spread_over_orders": "Marks: orders, each the mean over its seeds; (d): shares of the total "
    "sum of squares (η²).",
}


def report(results: ContinualResults, samples: Samples, histories: Histories) -> Report:
    """What becomes of tasks and of safety, one task after another, in the figures of one sweep.
    What needs several orders, or a run that finished, is left out where there is none."""
    frame, sequences, found = sequence_frame(results), sequences_of(results), order_claims(results)
    question, counts = plain(results.title), counts_line(results.counts)
    rows = table.orders_table(sequences)
    main = Table(
        "orders", rows, table.columns(rows, sequences),
        f"{question} {table.caption(sequences)} {counts}.", key=("order", "variant"),
    )  # fmt: skip
    # Over many orders every pair of cells would fill the page: one order is enough to read.
    cells = named(frame)
    cells = cells[cells["key"].isin([run.cell.key for run in sequences.main.runs])]
    return Report(
        results=results,
        frame=frame,
        headline=orders_headline(results, found),
        claims=found,
        sections=_sections(results, sequences, main),
        main=main,
        cells=cells,
        warnings=warnings(results),
        curves=partial(curves_by_variant, cells, chained(sequences.main, histories)),
        notes=[counts],
    )


def _sections(results: ContinualResults, sequences: Sequences, main: Table) -> list[Section]:
    matrix, parts = stage_tables.matrix_table(sequences), variance.variance_table(sequences)
    stages = stages_frame(results)
    several = len(sequences.orders) > 1
    shown = f", {one_line(ARROW.join(sequences.main.orders[0]), 80)}" * several

    def drawing(stem: str, draw: Any, label: str) -> Drawing:
        return Drawing(stem, partial(draw, sequences), label, FIGURES[stem].format(label))

    return [
        Section("table", "Every method at the end of the sequence", "Methods", [main]),
        Section("safety", "Safety, stage by stage", "Safety", [
            drawing("safety_by_stage", stage_figures.safety_by_stage, f"Safety by stage{shown}"),
        ]),
        Section("tasks", "What becomes of the tasks", "Tasks", [
            drawing("figure4", stage_figures.figure4, f"Accuracy of each task by stage{shown}"),
            drawing("figure5", stage_figures.figure5, f"Accuracy lost at each transition{shown}"),
            drawing("figure7", figures.figure7, "Backward transfer"),
            drawing("figure6", figures.figure6, "Stability"),
            Table("accuracy_matrix", matrix, stage_tables.matrix_columns(sequences),
                  stage_tables.MATRIX_CAPTION,
                  folded="Accuracy on every task after every stage"),
        ]),
        *([_orders(sequences, parts, drawing)] if several else ()),
        Section("stages", "Every stage", "Stages", [
            Table("stages", stages, stage_tables.stages_columns(sequences),
                  stage_tables.STAGES_CAPTION,
                  folded="Safety and accuracy after each stage of each run"),
        ]),
    ]  # fmt: skip


def _orders(sequences: Sequences, parts: Any, drawing: Any) -> Section:
    each = table.by_order(sequences)
    return Section("orders", "How much depends on the order?", "Orders", [
        drawing("spread_over_orders", figures.figure_orders, "Spread over orders"),
        Table("variance", parts, variance.COLUMNS,
              variance.variance_caption(sequences)),
        Table("by_order", each, table.columns(each, sequences), table.caption(sequences),
              key=("order", "variant"), folded="Every method in every order"),
    ])  # fmt: skip


def orders_headline(results: ContinualResults, found: Sequence[Claim]) -> str:
    """What the sequence does to plain LoRA, and each method's safety, accuracy and forgetting at
    its end."""
    sequences = sequences_of(results)
    runs, done, orders = sequences.runs, sequences.done, sequences.orders
    which = ARROW.join(orders[0]) if len(orders) == 1 else f"{len(orders)} orders"
    seeds = len({run.cell.seed for run in done})
    parts = [
        f"{len(done)} of {count(len(runs), 'run')} finished ({which}; {count(seeds, 'seed')})."
    ]
    lora = [run for run in done if run.cell.method == PLAIN]
    if lora:
        before = sequences.aligned.get("hrr")
        start = f"from {share(before)} before fine-tuning to " if before is not None else ""
        first, *_, last = stage_names(sequences)
        early = over_seeds(lora, lambda run: run.after(0, "hrr"))
        late = over_seeds(lora, "hrr")
        parts.append(
            f"Plain LoRA brings harmful responses {start}{_percent(early)} after {first} and "
            f"{_percent(late)} after {last}."
        )
    said = []
    for variant, mine in sequences.variants.items():
        rate, back = over_seeds(mine, "hrr"), over_seeds(mine, "bwt_all")
        text = (
            f"{variant} {_percent(rate)}, BT {_percent(over_seeds(mine, 'bt'))}, BWT over all "
            f"tasks {in_points(back.mean, back.std) or NOT_MEASURED}"
        )
        said.append((rate.mean, text))
    said.sort(key=lambda pair: (math.isnan(pair[0]), pair[0]))
    if said:
        listed = "; ".join(text for _, text in said)
        parts.append(f"At the end, from the lowest harmful response rate: {listed}.")
    told = [claim.holds for claim in found if claim.holds is not None]
    parts.append(
        f"{sum(told)} of the {len(told)} claims below that can be told hold, "
        f"{len(found) - len(told)} are open. {counts_line(results.counts)}."
    )
    return one_line(" ".join(parts), LONGEST)


def _percent(found: Spread) -> str:
    return percent(found.mean, found.std)
