"""Tables by stage of a sweep of orders: the accuracy matrix of each method, and every stage."""

import math
from typing import Any

import numpy as np
import pandas as pd

from raycib.analysis.statistics import mean_std
from raycib.analysis.tables import BEFORE, percent, spread
from raycib.analysis.text import plain
from raycib.studies.continual.sequences import ARROW, Run, Study

MATRIX_CAPTION = (
    "Accuracy in % on every task (columns) after every stage (rows): the matrix R. Mean ± sample "
    "standard deviation (ddof = 1) over seeds; runs that failed are left out. · marks the task "
    "that the stage trained."
)
STAGES_CAPTION = (
    "Every stage of every run. Rates in % with Wilson's 95 % interval and the number of answers "
    "behind them; a stage that runs share has the same key in each."
)


def matrix_table(study: Study) -> pd.DataFrame:
    """Accuracies as numbers: a row for each order, arm and stage, the model before fine-tuning
    first.

    ``<task>_mean`` and ``<task>_std`` are fractions, over ``seeds`` finished runs; ``trained`` is
    the stage's own task.
    """
    rows = []
    for order in study.orders:
        part = study.within(order)
        for arm, done in part.arms.items():
            for stage in range(len(order) + 1) if done else ():
                if stage == 0 and rows:
                    continue
                trained = order[stage - 1] if stage else ""
                place = {"order": ARROW.join(order), "arm": arm, "stage": stage}
                if stage == 0:
                    place |= {"order": "", "arm": BEFORE}
                rows.append(
                    place
                    | {"trained": trained, "seeds": len(done) if stage else 1}
                    | _accuracies(study, done, stage)
                )
    columns = ["order", "arm", "stage", "trained", "seeds"]
    columns += [f"{task}_{end}" for task in study.tasks for end in ("mean", "std")]
    return pd.DataFrame(rows, columns=columns)


def presentable_matrix(table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """``matrix_table`` as text for people."""
    rows = []
    for row in table.to_dict("records"):
        text = {"Order": row["order"]} if len(study.orders) > 1 else {}
        text |= {"Method": row["arm"], "After": row["trained"]}
        for task in study.tasks:
            mark = "· " if task == row["trained"] else ""
            text[task] = mark + spread(row[f"{task}_mean"], row[f"{task}_std"], 100, 1)
        rows.append(text)
    return pd.DataFrame(rows)


def presentable_stages(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """``stages_frame`` as text for people; a stage that failed says why."""
    rows = []
    for row in frame.to_dict("records"):
        text = {"Order": row["order"]} if len(study.orders) > 1 else {}
        text |= {"Method": row["arm"], "Seed": str(row["seed"])}
        text |= {"Stage": f"{row['stage']} {row['task']}", "Key": str(row["key"])[:12]}
        scores: dict[str, Any] = {str(name): value for name, value in row.items()}
        text["HRR, %"] = percent(scores, "hrr")
        text["Refusals, %"] = percent(scores, "refusal_rate")
        for task in study.tasks:
            value = scores.get(f"accuracy_{task}", math.nan)
            text[plain(task)] = spread(math.nan if value is None else value, math.nan, 100, 1)
        if frame["failed"].notna().any():
            text["Status"] = f"failed: {row['failed']}" if row["failed"] else ""
        rows.append(text)
    return pd.DataFrame(rows)


def _accuracies(study: Study, done: list[Run], stage: int) -> dict[str, float]:
    found = {}
    for task in study.tasks:
        values = [run.matrix[stage, run.order.index(task)] for run in done if task in run.order]
        over = mean_std(values if stage else np.unique(values))
        found |= {f"{task}_mean": over.mean, f"{task}_std": over.std}
    return found
