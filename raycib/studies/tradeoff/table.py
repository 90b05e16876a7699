"""The table of gaps: what every method does to safety and capability in each task, in nats."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from raycib.analysis.arms import Arm, plain_arm
from raycib.analysis.statistics import mean_std, wilson_over_seeds
from raycib.analysis.tables import BEFORE, shown, spread
from raycib.analysis.text import one_line
from raycib.studies.tradeoff.gap import ALIGNMENT, CAPABILITY, GAPS, TAX, Gap, gap, places
from raycib.studies.tradeoff.theory import Theory

HEADINGS = {
    ALIGNMENT: "Alignment gap, nats",
    CAPABILITY: "Capability gap, nats",
    f"{ALIGNMENT}_exact": "Exact alignment gap, nats",
    f"{CAPABILITY}_exact": "Exact capability gap, nats",
}
RATES = {
    "refusal_rate": ("Refusals, %", "Refused"),
    "accuracy": ("Task accuracy, %", "Accuracy"),
    "utility": ("Utility, %", "Utility"),
}
"""Headings of rates, and their headings in the narrow table, where these are means in per cent."""
SINGLE = ("refusal_rate", "incoherent_rate", "over_refusal", "accuracy", "utility", "eval_loss",
          "max_nll", *TAX)  # fmt: skip
NAME_WIDTH, TASK_WIDTH = 26, 12


def gaps_table(
    frame: pd.DataFrame, aligned: Mapping[str, Any] | None = None, theory: Theory | None = None
) -> pd.DataFrame:
    """One row of numbers for each task, method and strength; in each task first before
    fine-tuning, where its losses there were measured, then plain LoRA.

    ``<gap>_mean`` is in nats per answer with its 95 % interval ``_low`` to ``_high``; ``_spread``
    is the sample standard deviation over seeds, or of a single seed the standard error over
    ``_n`` rows. A cell that failed has a row whose ``status`` says why.
    """
    rows: list[dict[str, Any]] = []
    for place, task, found in places(frame):
        lora = plain_arm(found)
        if aligned and theory and lora and task in theory.aligned_nll:
            rows.append({"task": place} | _before(aligned, theory, task, lora))
        for arm in found:
            rows += [{"task": place} | row for row in _rows(arm)]
    columns = ["task", "series", "method", "strength", "seeds", "distance_mean", "distance_std"]
    for name in GAPS:
        columns += [f"{name}_{part}" for part in ("mean", "spread", "low", "high", "n")]
    columns += ["hrr_mean", "hrr_std", "hrr_low", "hrr_high", "hrr_n"]
    columns += [f"{name}_{part}" for name in SINGLE for part in ("mean", "std")]
    return pd.DataFrame(rows, columns=[*columns, "status"])


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


def presentable_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """``gaps_table`` as text for people; what was never measured is left out."""
    rows = []
    for row in _records(table):
        text = _place(row, table)
        for name, heading in HEADINGS.items():
            if table[f"{name}_mean"].notna().any():
                text[heading] = _gap(row, name)
                if not name.endswith("_exact"):
                    text[f"95 % of {heading.split(',')[0].lower()}"] = _ends(row, name, 1, 3)
        text["HRR, %"] = shown(row, "hrr", 100, 1)
        text["95 % of HRR"] = _ends(row, "hrr", 100, 1)
        for name, (heading, _) in RATES.items():
            if table[f"{name}_mean"].notna().any():
                text[heading] = shown(row, name, 100, 1)
        if table["status"].ne("").any():
            text["Status"] = row["status"]
        rows.append(text)
    return pd.DataFrame(rows)


def narrow_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """``gaps_table`` for a page or a terminal; rates are in per cent, and rows of failed cells
    have no status here: see ``failures``."""
    rows = []
    for row in _records(table.drop_duplicates(["task", "series", "strength"])):
        text = _place(row, table)
        if "Task" in text:
            text["Task"] = one_line(text["Task"], TASK_WIDTH)
        text["Method"] = one_line(text["Method"], NAME_WIDTH)
        text["Distance"] = spread(row["distance_mean"], math.nan)
        text["Alignment gap"] = _gap(row, ALIGNMENT)
        text["Capability gap"] = _gap(row, CAPABILITY)
        text["HRR, %"] = shown(row, "hrr", 100, 1, alone=True)
        text["95 %"] = _ends(row, "hrr", 100, 1)
        for name, (_, heading) in RATES.items():
            if table[f"{name}_mean"].notna().any():
                text[heading] = shown(row, name, 100, 1, alone=True)
        rows.append(text)
    return pd.DataFrame(rows)


def failures(table: pd.DataFrame) -> list[str]:
    """The failed cells of ``gaps_table``, each in a line with its reason."""
    return [
        one_line(
            f"{row['task']}, {row['series']}, strength {row['strength']:g}: {row['status']}"
        )
        for row in _records(table)
        if row["status"]
    ]  # fmt: skip


def before_capability(theory: Theory, task: str, lora: Arm) -> float:
    """The aligned model's capability gap: its loss on the task less plain LoRA's, in nats per
    answer; nan where either is not known."""
    return theory.aligned_nll.get(task, math.nan) - lora.mean("capability_nll")


def _before(
    aligned: Mapping[str, Any], theory: Theory, task: str, lora: Arm
) -> dict[str, Any]:  # fmt: skip
    """The aligned model: against itself its alignment gap is 0 by definition."""
    row = {"series": BEFORE, "method": "", "strength": math.nan, "seeds": 1, "status": ""}
    row |= {f"{ALIGNMENT}_mean": 0.0, "distance_mean": 0.0}
    row[f"{CAPABILITY}_mean"] = before_capability(theory, task, lora)
    # Accuracy and tax of the aligned model belong to the first task alone.
    shared = ("hrr", "refusal_rate", "incoherent_rate", "over_refusal", "utility")
    scores = pd.DataFrame([{k: v for k, v in aligned.items() if k.startswith(shared)}])
    return row | _rates(scores)


def _rows(arm: Arm) -> list[dict[str, Any]]:
    place = {"series": arm.series, "method": arm.method, "strength": arm.strength}
    rows: list[dict[str, Any]] = []
    if len(arm.done):
        found = {name: gap(arm.done, name) for name in GAPS}
        numbers = {}
        for name, value in found.items():
            numbers |= _numbers(name, value)
        numbers |= _means(arm.done, "distance") | _rates(arm.done)
        rows.append(place | {"seeds": len(arm.done), "status": ""} | numbers)
    for _, cell in arm.failed.iterrows():
        reason = f"failed (seed {cell['seed']}): {cell['failed']}"
        rows.append({**place, "seeds": 0, "status": reason})
    return rows


def _numbers(name: str, found: Gap) -> dict[str, float]:
    n = found.n or math.nan
    return {f"{name}_mean": found.value, f"{name}_spread": found.spread, f"{name}_low": found.low,
            f"{name}_high": found.high, f"{name}_n": n}  # fmt: skip


def _rates(cells: pd.DataFrame) -> dict[str, float]:
    found = _means(cells, "hrr")
    for name in SINGLE:
        found |= _means(cells, name)
    ends = wilson_over_seeds(cells["hrr"], cells["hrr_n"]) if "hrr_n" in cells else None
    if ends:
        found |= {"hrr_low": ends.low, "hrr_high": ends.high, "hrr_n": ends.n}
    return found


def _means(cells: pd.DataFrame, name: str) -> dict[str, float]:
    over_seeds = mean_std(cells.get(name, []))
    return {f"{name}_mean": over_seeds.mean, f"{name}_std": over_seeds.std}


def _place(row: Mapping[str, Any], table: pd.DataFrame) -> dict[str, str]:
    text = {"Task": one_line(row["task"], 30)} if table["task"].nunique() > 1 else {}
    strength = "" if math.isnan(row["strength"]) else f"{row['strength']:g}"
    text |= {"Method": row["series"], "Strength": strength}
    if table["seeds"].max() > 1:
        text["Seeds"] = str(row["seeds"])
    return text | {"Distance": spread(row["distance_mean"], row["distance_std"])}


def _gap(row: Mapping[str, Any], name: str) -> str:
    return spread(row[f"{name}_mean"], row[f"{name}_spread"], 1, 3)


def _ends(row: Mapping[str, Any], name: str, factor: float, decimals: int) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if pd.isna(low) or pd.isna(high):
        return ""
    return f"[{low * factor:z.{decimals}f}, {high * factor:z.{decimals}f}]"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
