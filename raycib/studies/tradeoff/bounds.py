"""The theorems of the trade-offs paper, held against every cell: does each bound hold, how loosely?

All quantities are in nats per answer. Constants that the theorems leave in O(.) are those of their
proofs; what a bound rests on and cannot be known exactly is said in its note.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from raycib.report.forms import number
from raycib.report.frame import PLAIN
from raycib.report.table import Column, records
from raycib.studies.tradeoff.gap import ALIGNMENT, BALL, CAPABILITY, CASE1, proxy_name
from raycib.studies.tradeoff.theory import Theory

THEOREMS = {
    "1": "Theorem 1, alignment gap in Case I",
    "1, by its proof": "Theorem 1 by its proof, with the aligned model as comparator",
    "2": "Theorem 2, capability gap in Case I",
    "2, against LoRA": "Theorem 2, less what plain LoRA leaves",
    "3": "Theorem 3, alignment gap by distance",
    "4, as stated": "Theorem 4 as stated, capability gap in Case II's ball",
    "4, corrected": "Theorem 4 corrected for small ε",
}
CAPTION = (
    "A bound holds in a cell where the 95 % interval (over rows) of the gap lies below it, fails "
    "where the interval lies above it, and is open where the interval contains it. Slack: bound "
    "less gap, in nats per answer. Looseness: bound / gap, where the gap is positive."
)
BY_ROWS = "losses are means over rows: λ has no value in nats per answer"
Row = dict[str, Any]


def theorem1(lam: float, c_p: float, tv_inputs: float, tv_outputs: float, kl: float) -> float:
    """Upper bound of G_s in Case I: 2 C_p / λ + 4 C_p (TV_in + TV_out) + KL_out (Eq. 7-11).

    The proof has C_p times the sums of absolute differences, which are 2 TV, twice (Eq. 8 and 11),
    and 2 C_p / λ (Eq. 10). ``lam`` is per answer, ``c_p`` the largest -log p.
    """
    return 2 * c_p / lam + 4 * c_p * (tv_inputs + tv_outputs) + kl


def theorem1_by_proof(lam: float, aligned_nll: float, nll: float) -> float:
    """Upper bound of G_s(θ) - G_s(θ_s) where the safety data are the original ones:
    (L_f(θ_s) - L_f(θ)) / λ.

    θ is optimal, so L_f(θ) + λ L_s(θ) <= L_f(θ_s) + λ L_s(θ_s): Eq. 9 with θ_s in the place of μ̂.
    """
    return (aligned_nll - nll) / lam


def theorem2(lam: float, divergence: float) -> float:
    """Upper bound of G_f in Case I: λ Σ_x D̂(x) KL(μ̂(x) | μ_f(x)) over shared prompts (Eq. 14)."""
    return lam * divergence


def theorem3(slope: float, distance: float) -> float:
    """Upper bound of G_s(θ) - G_s(θ_s): L_s(θ_s, ε) ‖θ - θ_s‖ (Eq. 15)."""
    return slope * distance


def theorem4_decrease(gradient: float, smoothness: float, epsilon: float = math.inf) -> float:
    """What a task loss of this slope and curvature falls at least within ``epsilon``, in nats.

    The best step along the gradient g is g / L if that is inside the ball: g² / 2L, which the
    theorem states for every ε (Eq. 17); else ε: ε g - L ε² / 2.
    """
    if epsilon * smoothness <= gradient:
        return epsilon * gradient - smoothness * epsilon**2 / 2
    return gradient**2 / (2 * smoothness)


def bounds(frame: pd.DataFrame, theory: Theory | None) -> pd.DataFrame:
    """One row for each theorem and finished cell that it speaks of.

    ``quantity`` is the column of the gap; exact gaps are taken where a theorem means those and
    they are known. ``bound``, ``slack`` (bound less gap) in nats; ``ratio`` is bound / gap, nan
    for gaps that are not positive; ``holds`` is None where there is no bound, or where the gap's
    95 % interval contains it. Empty without ``theory``.
    """
    rows: list[Row] = []
    if theory:
        done = frame[frame["failed"].isna()]
        cells = records(done)
        references = {_place(c): c["capability_nll"] for c in cells if c["method"] == PLAIN}
        for cell in cells:
            lora = references.get(_place(cell), math.nan)
            for theorem, quantity, bound, note in _of_cell(cell, theory, lora):
                place = {"theorem": theorem, "task": cell["task"], "series": cell["label"]}
                place |= {"method": cell["method"], "strength": cell["strength"]}
                place |= {"seed": cell["seed"], "quantity": quantity}
                rows.append(place | judged(cell, quantity, bound) | {"note": note})
    fields = [
        "theorem", "task", "series", "method", "strength", "seed", "quantity", "gap", "low", "high",
        "bound", "holds", "slack", "ratio", "note",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=fields).astype({"holds": object})


def judged(cell: Mapping[str, Any], quantity: str, bound: float | None) -> Row:
    """The gap of a cell against a bound in nats: whether it holds, and how loose it is."""
    value = cell[quantity]
    low, high = (cell.get(quantity + end, math.nan) for end in ("_low", "_high"))
    row: Row = {"gap": value, "low": low, "high": high, "bound": bound, "holds": None}
    if bound is None:
        return row
    # Without an interval the gap itself decides.
    low, high = (value if math.isnan(end) else end for end in (low, high))
    if high <= bound:
        row["holds"] = True
    elif low > bound:
        row["holds"] = False
    return row | {"slack": bound - value, "ratio": bound / value if value > 0 else math.nan}


def summary_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each theorem in ``bounds``: in how many cells it holds, fails, is open or has no
    bound; median, smallest and largest looseness and slack."""
    rows: list[Row] = []
    for theorem, part in table.groupby("theorem", sort=False):
        known = part[part["bound"].notna()]
        holds = sum(value is True for value in known["holds"])
        fails = sum(value is False for value in known["holds"])
        row: Row = {"theorem": theorem, "cells": len(part), "holds": holds, "fails": fails}
        row |= {"open": len(known) - holds - fails, "no_bound": len(part) - len(known)}
        for name in ("ratio", "slack"):
            values = known[name].astype(float)
            for part_name, of in (("median", values.median), ("min", values.min),
                                  ("max", values.max)):  # fmt: skip
                row[f"{name}_{part_name}"] = float(of()) if values.notna().any() else math.nan
        rows.append(row)
    order = list(THEOREMS)
    rows.sort(key=lambda row: order.index(row["theorem"]))
    fields = ["theorem", "cells", "holds", "fails", "open", "no_bound"]
    fields += [f"{n}_{part}" for n in ("ratio", "slack") for part in ("median", "min", "max")]
    return pd.DataFrame(rows, columns=fields)


def summary_columns(table: pd.DataFrame) -> list[Column]:
    """What people see of ``summary_table``."""
    return [
        Column("theorem", "Theorem", lambda row, field: THEOREMS[row[field]]),
        Column("cells", "Cells"),
        Column("holds", "Holds"),
        Column("fails", "Fails"),
        Column("open", "Open"),
        Column("no_bound", "No bound"),
        *(
            column
            for name, head in (("ratio", "Bound / gap"), ("slack", "Slack, nats"))
            for column in (
                Column(f"{name}_median", f"{head}: median", size),
                Column(name, f"{head}: extremes", _extremes),
            )
        ),
    ]


def columns(table: pd.DataFrame) -> list[Column]:
    """What people see of ``bounds``."""
    return [
        Column("theorem", "Theorem"),
        Column("task", "Task"),
        Column("series", "Method"),
        Column("strength", "Strength", number("g")),
        *([Column("seed", "Seed")] if table["seed"].nunique() > 1 else ()),
        Column("gap", "Gap, nats", size),
        Column("bound", "Bound, nats", size),
        Column("holds", "Holds", _verdict),
        Column("slack", "Slack, nats", size),
        Column("ratio", "Bound / gap", size),
        Column("note", "Note"),
    ]


def size(row: Mapping[str, Any], field: str) -> str:
    """``amount`` as the form of a column."""
    return amount(row[field])


def _extremes(row: Mapping[str, Any], field: str) -> str:
    low, high = amount(row[f"{field}_min"]), amount(row[f"{field}_max"])
    return f"{low} to {high}" if low else ""


def _verdict(row: Mapping[str, Any], field: str) -> str:
    if pd.isna(row["bound"]):
        return "no bound"
    return {True: "holds", False: "fails"}.get(row[field], "open")


def amount(value: float | None) -> str:
    """A number of any size in three digits, without an exponent; "" for nan."""
    if value is None or math.isnan(value):
        return ""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:z.{min(digits, 6)}f}"


def _of_cell(
    cell: Row, theory: Theory, lora_nll: float
) -> Iterator[tuple[str, str, float | None, str]]:
    """Theorem, the column of the gap it bounds, the bound (None: not known), and a note."""
    if cell["method"] == CASE1:
        yield from _case1(cell, theory)
    if not math.isnan(cell["distance"]) and not math.isnan(cell[ALIGNMENT]):
        slope = theory.slope(cell["distance"])
        bound = None if slope is None else theorem3(slope, cell["distance"])
        note = "beyond the largest ball measured" if slope is None else ""
        yield "3", ALIGNMENT, bound, note
    if cell["method"] == BALL and not math.isnan(cell[CAPABILITY]):
        land = theory.landscape(str(cell["task"]))
        start = theory.aligned_nll.get(str(cell["task"]), math.nan) - lora_nll
        for theorem, epsilon in (("4, as stated", math.inf), ("4, corrected", cell["strength"])):
            bound, note = None, "gradient, smoothness or losses not measured"
            if land and land.gradient_norm is not None and land.smoothness and start == start:
                note = "nothing tried curves upward, so L'_f is not known"
                if land.smoothness > 0:  # which Assumption 4 asks for
                    decrease = theorem4_decrease(land.gradient_norm, land.smoothness, epsilon)
                    bound, note = start - decrease, ""
            yield theorem, CAPABILITY, bound, note


def _case1(cell: Row, theory: Theory) -> Iterator[tuple[str, str, float | None, str]]:
    task, name = str(cell["task"]), proxy_name(cell["proxy"], cell["label"])
    loss = [str(cell.get(part) or "") for part in ("form", "reduction")]
    lam, proxy = theory.lambda_in_nats(cell["strength"], task, name, *loss), theory.proxy(name)
    quantity = _exact(cell, ALIGNMENT)
    if not math.isnan(cell[quantity]):
        bound, note = None, "data terms, answer lengths or C_p not known"
        terms = proxy.terms if proxy else (None,)
        if lam and not math.isnan(cell["max_nll"]) and None not in terms:
            bound = theorem1(lam, cell["max_nll"], *(term or 0.0 for term in terms))
            note = f"data terms {proxy.how}" if proxy else ""
        elif loss[1] == "row":
            note = BY_ROWS
        elif proxy and proxy.kl_outputs is None:
            note = "KL of the outputs infinite or not known"
        yield "1", quantity, bound, note
    if proxy and proxy.original and not math.isnan(cell[ALIGNMENT]):
        start, nll = theory.aligned_nll.get(task), cell["capability_nll"]
        known = bool(lam) and start is not None and not math.isnan(nll)
        bound = theorem1_by_proof(lam or 1, start or 0, nll) if known else None
        unknown = BY_ROWS if loss[1] == "row" else "losses or answer lengths not known"
        note = "" if known else unknown
        yield "1, by its proof", ALIGNMENT, bound, note
    shared = theory.overlap(name, task)
    # An estimate of 0 does not say that no prompt is shared.
    if shared and shared.overlap == 0 and shared.how == "exact":
        bound, note = 0.0, "no prompt is shared"
    elif lam is None or shared is None or shared.divergence is None:
        lacking = "divergence infinite or not known" if shared and lam else "overlap not measured"
        bound, note = None, BY_ROWS if loss[1] == "row" else lacking
    else:
        bound, note = theorem2(lam, shared.divergence), f"overlap {shared.how}"
    quantity = _exact(cell, CAPABILITY)
    if not math.isnan(cell[quantity]):
        yield "2", quantity, bound, note
    # The theorem is about exact optima: what plain LoRA leaves as well is not the penalty's doing.
    if quantity != CAPABILITY and not math.isnan(cell[CAPABILITY]):
        yield "2, against LoRA", CAPABILITY, bound, note


def _exact(cell: Row, name: str) -> str:
    """The column of a gap against the entropy of the data, or else against a trained model."""
    return name if math.isnan(cell[f"{name}_exact"]) else f"{name}_exact"


def _place(cell: Row) -> tuple[Any, ...]:
    return cell["model"], cell["task"], cell["seed"]
