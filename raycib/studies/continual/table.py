"""The table of methods in continual fine-tuning: what each keeps of tasks and of safety."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from raycib.counting import count
from raycib.report.forms import BEFORE, Row, ends, in_points, mean, number, points, short
from raycib.report.statistics import wilson
from raycib.report.table import STATUS, Column
from raycib.report.variants import before_row
from raycib.results import Counts
from raycib.studies.continual.sequences import ARROW, Run, Sequences, over_seeds

MEASURED = (
    "bt", "bt_all", "bwt", "bwt_all", "forward_transfer", "forgetting", "stability",
    "stability_first", "hrr", "refusal_rate", "incoherent_rate", "over_refusal", "utility",
    "eval_loss", "mutual_information", "mutual_information_last_prompt", "distance",
)  # fmt: skip
NAME_WIDTH = 26


def orders_table(sequences: Sequences) -> pd.DataFrame:
    """One row of numbers for each variant over all orders; first the model before fine-tuning.

    ``<column>_mean`` is the mean over seeds, each averaged over its orders, ``<column>_std`` the
    sample standard deviation (ddof = 1) of the seeds; accuracies and rates are fractions.
    ``hrr_stage_1_mean`` is the harmful response rate after the first stage, and so on. ``rank`` is
    the largest total rank of the last adapters. A run that failed has a row with its ``status``.
    """
    return _table(sequences, [("", sequences)])


def by_order(sequences: Sequences) -> pd.DataFrame:
    """The same with a row for each order and variant."""
    return _table(
        sequences, [(ARROW.join(order), sequences.within(order)) for order in sequences.orders]
    )


def caption(sequences: Sequences) -> str:
    """What the columns of ``orders_table`` mean."""
    orders = sequences.orders
    head = f"Order: {ARROW.join(orders[0])}." if len(orders) == 1 else f"{len(orders)} orders."
    over = "" if len(orders) == 1 else ", each averaged over its orders"
    out = sequences.left_out
    return (
        f"{head} Mean ± sample standard deviation (ddof = 1) over seeds{over}. BT: mean accuracy "
        f"after the last stage over the tasks without {out}, which the paper leaves out (its "
        "Table 2); BWT (Eq. 26): final accuracy less that right after a task's own stage, the "
        f"mean over the tasks but the last, without {out}; negative where later stages cost "
        f"accuracy. All tasks: {out} included. Forward transfer: accuracy right before a task's "
        "own stage less that before fine-tuning. HRR: harmful response rate, after the last stage "
        "with Wilson's 95 % interval at the mean. Rank: total of the last adapter; O-LoRA has an "
        "adapter for each task, so its rank grows with every stage."
    )


def columns(table: pd.DataFrame, sequences: Sequences) -> list[Column]:
    """What people see of ``orders_table`` or ``by_order``, in per cent and points."""
    alone = mean(100, 1, around="")
    order, runs = Column("order", "Order", brief="Order"), Column("runs", "Runs", brief="Runs")
    stages = [
        Column(f"hrr_stage_{place}_mean", f"HRR after {task}, %", number("z.1f", 100))
        for place, task in enumerate(stage_names(sequences), 1)
    ]
    return [
        *([order] if table["order"].ne("").any() else ()),
        Column("variant", "Method", brief="Method", brief_form=short(NAME_WIDTH)),
        Column("strength", "Strength", number("g"), brief="Strength"),
        Column("seeds", "Seeds", brief="Seeds"),
        *([runs] if (table["runs"] > table["seeds"]).any() else ()),
        Column("bt", "BT, %", mean(100, 1), "BT", alone),
        Column("bt_all", "BT, all tasks, %", mean(100, 1)),
        Column("bwt", "BWT, points", points, "BWT", _alone),
        Column("bwt_all", "BWT, all tasks, points", points, "BWT, all", _alone),
        Column("forward_transfer", "Forward transfer, points", points, "FT", _alone),
        Column("hrr", "HRR, %", mean(100, 1), "HRR, %"),
        Column("hrr", "95 % of HRR", ends(100, 1), "95 %"),
        Column("hrr", "", _path, "HRR by stage"),
        *stages,
        Column("refusal_rate", "Refusals, %", mean(100, 1), "Refused",
               mean(100, 1, around="", told=False), optional=True),
        Column("over_refusal", "Over-refusal, %", mean(100, 1), optional=True),
        Column("mutual_information_mean", "I(Z;C), nats", number("z.3f"), optional=True),
        Column("rank", "Rank", number("g"), "Rank"),
        STATUS,
    ]  # fmt: skip


def counts_line(counts: Counts) -> str:
    """How many stages a sweep of orders asked for, shared between runs, trained and reused."""
    shared = counts.stages_shared
    return (
        f"{count(counts.stages + shared, 'stage')} asked for, {counts.stages} distinct ({shared} "
        f"shared by runs that begin alike): {counts.stages_trained} trained, "
        f"{counts.stages_reused} reused"
    )


def stage_names(sequences: Sequences) -> list[str]:
    """Each stage by its task, or by its number where there are several orders."""
    [first, *others] = sequences.orders
    return [f"stage {i}" for i in range(1, len(first) + 1)] if others else list(first)


def _table(sequences: Sequences, parts: Iterable[tuple[str, Sequences]]) -> pd.DataFrame:
    stages = max(len(order) for order in sequences.orders)
    rows = [_before(sequences)] if sequences.aligned else []
    for order, part in parts:
        finished = part.variants
        for variant in dict.fromkeys(run.variant for run in part.runs):
            mine = [run for run in part.runs if run.variant == variant]
            place = {"order": order, "variant": variant, "method": mine[0].cell.method,
                     "strength": mine[0].cell.strength}  # fmt: skip
            if variant in finished:
                rows.append(place | _numbers(finished[variant], stages))
            for run in mine:
                if run.cell.failed:
                    where = f"seed {run.cell.seed}" + f", {ARROW.join(run.order)}" * (not order)
                    rows.append({**place, "seeds": 0, "runs": 0, "rank": math.nan,
                                 "status": f"failed ({where}): {run.cell.failed}"})  # fmt: skip
    fields = ["order", "variant", "method", "strength", "seeds", "runs"]
    names = [*MEASURED, *(f"hrr_stage_{number}" for number in range(1, stages + 1))]
    fields += [f"{name}_{part}" for name in names for part in ("mean", "std")]
    return pd.DataFrame(rows, columns=[*fields, "hrr_low", "hrr_high", "hrr_n", "rank", "status"])


def _before(sequences: Sequences) -> dict[str, Any]:
    """The aligned model: its accuracies make a BT, but nothing came before them."""
    row = before_row(sequences.aligned, MEASURED)
    row |= {"order": "", "variant": BEFORE, "runs": 1, "rank": math.nan}
    known = {task: sequences.aligned.get(f"accuracy_{task}") for task in sequences.tasks}
    for name, tasks in (("bt", sequences.tasks[1:]), ("bt_all", sequences.tasks)):
        values = [known[task] for task in tasks]
        kept = [value for value in values if value is not None]
        row[f"{name}_mean"] = sum(kept) / len(kept) if kept and kept == values else math.nan
    if sequences.aligned.get("hrr_n"):
        row |= {name: sequences.aligned.get(name) for name in ("hrr_low", "hrr_high", "hrr_n")}
    return row


def _numbers(done: Sequence[Run], stages: int) -> dict[str, Any]:
    row: dict[str, Any] = {"seeds": len({run.cell.seed for run in done}), "runs": len(done)}
    found = {name: over_seeds(done, name) for name in MEASURED}
    for i in range(stages):
        found[f"hrr_stage_{i + 1}"] = over_seeds(done, lambda r, i=i: r.after(i, "hrr"))
    for name, spread in found.items():
        row |= {f"{name}_mean": spread.mean, f"{name}_std": spread.std}
    asked = [n for run in done if (n := run.value("hrr_n")) > 0]
    if asked and math.isfinite(found["hrr"].mean):
        # Seeds and orders are asked the same prompts: n is the prompts.
        ends = wilson(found["hrr"].mean, int(min(asked)))
        row |= {"hrr_low": ends.low, "hrr_high": ends.high, "hrr_n": ends.n}
    ranks = [rank for run in done if math.isfinite(rank := run.value("cost_rank"))]
    return row | {"rank": max(ranks, default=math.nan), "status": ""}


def _alone(row: Row, field: str) -> str:
    return in_points(row[f"{field}_mean"])


def _path(row: Row, field: str) -> str:
    """The means after every stage; "" where one is missing."""
    stages = [n for n in row if n.startswith("hrr_stage_") and n.endswith("_mean")]
    steps = [row[name] for name in stages]
    known = [f"{100 * value:z.0f}" for value in steps if math.isfinite(value)]
    return ARROW.join(known) if len(known) == len(steps) else ""
