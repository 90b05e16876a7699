"""The table of gaps: what every method does to safety and capability in each task, in nats."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from raycib.report.forms import ends, mean, number, short
from raycib.report.table import STATUS, Column
from raycib.report.variants import (
    ResultRow,
    before_row,
    hrr_ends,
    means,
    plain_variant,
    result_rows,
)
from raycib.studies.tradeoff.gap import ALIGNMENT, CAPABILITY, GAPS, TAX, gap, places
from raycib.studies.tradeoff.theory import Theory

RATES = (
    ("refusal_rate", "Refusals, %", "Refused"),
    ("accuracy", "Task accuracy, %", "Accuracy"),
    ("utility", "Utility, %", "Utility"),
)
"""Rates with their heads, and those of the brief form, where these are means in per cent."""
SINGLE = ("refusal_rate", "incoherent_rate", "over_refusal", "accuracy", "utility", "eval_loss",
          "max_nll", *TAX)  # fmt: skip
NAME_WIDTH, TASK_WIDTH = 26, 12


def gaps_table(
    frame: pd.DataFrame, aligned: Mapping[str, Any], theory: Theory | None
) -> pd.DataFrame:
    """One row of numbers for each task, method and strength; in each task first before
    fine-tuning, where its losses there were measured, then plain LoRA.

    ``<gap>_mean`` is in nats per answer with its 95 % interval ``_low`` to ``_high``; ``_spread``
    is the sample standard deviation over seeds, or of a single seed the standard error over
    ``_n`` rows. A cell that failed has a row whose ``status`` says why.
    """
    rows: list[dict[str, Any]] = []
    for place, task, found in places(frame):
        lora = plain_variant(found)
        if aligned and theory and lora and task in theory.aligned_nll:
            rows.append({"task": place} | _before(aligned, theory, task, lora))
        for variant in found:
            rows += result_rows(variant, _numbers, task=place)
    fields = ["task", "series", "method", "strength", "seeds", "distance_mean", "distance_std"]
    for name in GAPS:
        fields += [f"{name}_{part}" for part in ("mean", "spread", "low", "high", "n")]
    fields += ["hrr_mean", "hrr_std", "hrr_low", "hrr_high", "hrr_n"]
    fields += [f"{name}_{part}" for name in SINGLE for part in ("mean", "std")]
    return pd.DataFrame(rows, columns=[*fields, "status"])


def caption(table: pd.DataFrame) -> str:
    """What the columns of a ``gaps_table`` mean, and which spread stands behind ±."""
    several = table["seeds"].max() > 1
    spreads = (
        "Gaps: mean ± sample standard deviation (ddof = 1) over seeds, and Student's 95 % interval "
        "of the mean over seeds; rows with one seed: ± standard error over rows."
        if several
        else "Gaps: ± standard error over rows, and the 95 % interval of that; one seed, so how "
        "another would come out is not in them."
    )
    return (
        "Gaps in nats per answer. Alignment gap: how much less likely the answers of the original "
        "alignment data are than under the aligned model (Eq. 19). Capability gap: the same for "
        "the task's answers against plain LoRA of the same task and seed (Eq. 20). Exact gaps are "
        "against the entropy of the data (Eq. 3 and 4). No gap is clipped at 0. "
        f"{spreads} Strength: λ, or of Case II's ball its radius ε, in units of distance, which is "
        "weaker the larger it is. λ of Case I weighs nats per token against nats per token, of CIB "
        "nats of the contrastive loss against nats per token: both without unit; that of Case II's "
        "penalty is nats per token for a squared unit of distance. Distance: Frobenius norm of the "
        "weights' update. HRR: harmful response rate, with Wilson's 95 % interval at the mean."
    )


def columns(table: pd.DataFrame) -> list[Column]:
    """What people see of ``gaps_table``: rates in per cent, gaps in nats per answer."""
    alone, width = mean(100, 1, around=""), short(NAME_WIDTH)
    value = mean(1, 3, around="spread", told=False)
    tasks = Column("task", "Task", short(30), "Task", short(TASK_WIDTH))
    seeds = Column("seeds", "Seeds", brief="Seeds")
    return [
        *([tasks] if table["task"].nunique() > 1 else ()),
        Column("series", "Method", brief="Method", brief_form=width),
        Column("strength", "Strength", number("g"), brief="Strength"),
        *([seeds] if table["seeds"].max() > 1 else ()),
        Column("distance", "Distance", mean(1, 2, told=False), "Distance",
               mean(1, 2, around="", told=False)),
        Column(ALIGNMENT, "Alignment gap, nats", value, "Alignment gap", optional=True),
        Column(ALIGNMENT, "95 % of alignment gap", ends(), optional=True),
        Column(CAPABILITY, "Capability gap, nats", value, "Capability gap", optional=True),
        Column(CAPABILITY, "95 % of capability gap", ends(), optional=True),
        Column(f"{ALIGNMENT}_exact", "Exact alignment gap, nats", value, optional=True),
        Column(f"{CAPABILITY}_exact", "Exact capability gap, nats", value, optional=True),
        Column("hrr", "HRR, %", mean(100, 1), "HRR, %", alone),
        Column("hrr", "95 % of HRR", ends(100, 1), "95 %"),
        *(Column(name, head, mean(100, 1), brief, alone, True) for name, head, brief in RATES),
        STATUS,
    ]  # fmt: skip


def before_capability(theory: Theory, task: str, lora: ResultRow) -> float:
    """The aligned model's capability gap: its loss on the task less plain LoRA's, in nats per
    answer; nan where either is not known."""
    return theory.aligned_nll.get(task, math.nan) - lora.mean("capability_nll")


def _before(
    aligned: Mapping[str, Any], theory: Theory, task: str, lora: ResultRow
) -> dict[str, Any]:  # fmt: skip
    """The aligned model: against itself its alignment gap is 0 by definition."""
    # Accuracy and tax of the aligned model belong to the first task alone.
    shared = ("hrr", "refusal_rate", "incoherent_rate", "over_refusal", "utility")
    scores = {k: v for k, v in aligned.items() if k.startswith(shared)}
    row = before_row(scores, ["hrr", *SINGLE]) | hrr_ends(pd.DataFrame([scores]))
    row |= {f"{ALIGNMENT}_mean": 0.0, "distance_mean": 0.0}
    return row | {f"{CAPABILITY}_mean": before_capability(theory, task, lora)}


def _numbers(cells: pd.DataFrame) -> dict[str, float]:
    """Gaps with their intervals, the distance and the rates of equal cells."""
    numbers = {}
    for name in GAPS:
        found = gap(cells, name)
        numbers |= {f"{name}_mean": found.value, f"{name}_spread": found.spread,
                    f"{name}_low": found.low, f"{name}_high": found.high,
                    f"{name}_n": found.n or math.nan}  # fmt: skip
    return numbers | means(cells, ["distance", "hrr", *SINGLE]) | hrr_ends(cells)
