"""Tables by stage of a sweep of orders: the accuracy matrix of each method, and every stage."""

import numpy as np
import pandas as pd

from raycib.report.forms import BEFORE, Row, mean, number, rate
from raycib.report.statistics import mean_std
from raycib.report.table import Column
from raycib.report.text import plain
from raycib.studies.continual.sequences import ARROW, Run, Sequences

MATRIX_CAPTION = (
    "Accuracy in % on every task (columns) after every stage (rows): the matrix R. Mean ± sample "
    "standard deviation (ddof = 1) over seeds; runs that failed are left out. · marks the task "
    "that the stage trained."
)
STAGES_CAPTION = (
    "Every stage of every run. Rates in % with Wilson's 95 % interval and the number of answers "
    "behind them; a stage that runs share has the same key in each."
)


def matrix_table(sequences: Sequences) -> pd.DataFrame:
    """Accuracies as numbers: a row for each order, variant and stage, the model before fine-tuning
    first.

    ``<task>_mean`` and ``<task>_std`` are fractions, over ``seeds`` finished runs; ``trained`` is
    the stage's own task.
    """
    rows = []
    for order in sequences.orders:
        part = sequences.within(order)
        for variant, done in part.variants.items():
            for stage in range(len(order) + 1):
                if stage == 0 and rows:
                    continue
                trained = order[stage - 1] if stage else ""
                place = {"order": ARROW.join(order), "variant": variant, "stage": stage}
                if stage == 0:
                    place |= {"order": "", "variant": BEFORE}
                rows.append(
                    place
                    | {"trained": trained, "seeds": len(done) if stage else 1}
                    | _accuracies(sequences, done, stage)
                )
    columns = ["order", "variant", "stage", "trained", "seeds"]
    columns += [f"{task}_{end}" for task in sequences.tasks for end in ("mean", "std")]
    return pd.DataFrame(rows, columns=columns)


def matrix_columns(sequences: Sequences) -> list[Column]:
    """What people see of ``matrix_table``: accuracies in per cent, the stage's own task marked."""

    def accuracy(row: Row, task: str) -> str:
        text = mean(100, 1, told=False)(row, task)
        return f"· {text}" if task == row["trained"] else text

    return [
        *_order(sequences),
        Column("variant", "Method"),
        Column("trained", "After"),
        *(Column(task, task, accuracy) for task in sequences.tasks),
    ]


def stages_columns(sequences: Sequences) -> list[Column]:
    """What people see of ``stages_frame``; a stage that failed says why."""
    return [
        *_order(sequences),
        Column("variant", "Method"),
        Column("seed", "Seed"),
        Column("stage", "Stage", lambda row, field: f"{row[field]} {row['task']}"),
        Column("key", "Key", lambda row, field: str(row[field])[:12]),
        Column("hrr", "HRR, %", rate),
        Column("refusal_rate", "Refusals, %", rate),
        *(Column(f"accuracy_{task}", plain(task), _accuracy) for task in sequences.tasks),
        Column("failed", "Status", lambda row, f: f"failed: {row[f]}" if row[f] else "",
               optional=True),
    ]  # fmt: skip


def _order(sequences: Sequences) -> list[Column]:
    return [Column("order", "Order")] if len(sequences.orders) > 1 else []


def _accuracy(row: Row, field: str) -> str:
    return number("z.1f", 100)(row, field) if field in row else ""


def _accuracies(sequences: Sequences, done: list[Run], stage: int) -> dict[str, float]:
    found = {}
    for task in sequences.tasks:
        values = [run.matrix[stage, run.order.index(task)] for run in done if task in run.order]
        over = mean_std(values if stage else np.unique(values))
        found |= {f"{task}_mean": over.mean, f"{task}_std": over.std}
    return found
