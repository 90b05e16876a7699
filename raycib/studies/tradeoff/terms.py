"""What the bounds are made of, and the alignment tax with its own bound."""

import math
from typing import Any

import pandas as pd

from raycib.report.forms import number
from raycib.report.statistics import mean_std
from raycib.report.table import Column
from raycib.studies.tradeoff.bounds import amount, size
from raycib.studies.tradeoff.gap import TAX
from raycib.studies.tradeoff.theory import Theory

DATA_CAPTION = (
    "How far each proxy's safety data are from the original ones (Theorem 1: total variation of "
    "prompts and of answers, mean KL(original | proxy) of answers), and what their prompts share "
    "with a task's (Theorem 2). Overlap: the share of the safety data on shared prompts; conflict: "
    "Σ D̂(x) KL(μ̂(x) | μ_f(x)) over them, in nats per answer. Empty: infinite or not known."
)
MODEL_CAPTION = (
    "The loss landscape around the aligned model. Slope and curvature are the largest ones found, "
    "so at most the true constants: bounds made of them may be too small (Theorem 3) or claim too "
    "large a decrease (Theorem 4). Distance: Frobenius norm of the weights' update."
)
TAX_CAPTION = (
    "Alignment tax I(Z;Y) - I(Z;Y|C) against its bound I(Y;C) (CIB paper, Proposition 1): Z the "
    "fine-tuned representation, C the aligned model's, Y the task's label with entropy H(Y); all "
    "estimated, in nats, means over seeds."
)


def data_terms(theory: Theory) -> pd.DataFrame:
    """A row for each proxy and task: the data terms of Theorems 1 and 2, in [0, 1] and nats."""
    rows: list[dict[str, Any]] = []
    for proxy in theory.proxies:
        head = {"proxy": proxy.name, "rows": proxy.rows, "tv_inputs": proxy.tv_inputs,
                "tv_outputs": proxy.tv_outputs, "kl_outputs": proxy.kl_outputs}  # fmt: skip
        shared = [overlap for overlap in theory.overlaps if overlap.proxy == proxy.name]
        for overlap in shared or [None]:
            how, note = [proxy.how], [proxy.note]
            row = {"task": "", "overlap": None, "conflict": None}
            if overlap:
                row = {"task": overlap.task, "overlap": overlap.overlap}
                row["conflict"] = overlap.divergence
                how.append(overlap.how)
                note.append(overlap.note)
            row |= {"how": _joined(how), "note": _joined(note)}
            rows.append(head | row)
    columns = ["proxy", "rows", "tv_inputs", "tv_outputs", "kl_outputs", "task", "overlap",
               "conflict", "how", "note"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


DATA = (
    Column("proxy", "Proxy"),
    Column("rows", "Rows", number("z.0f")),
    Column("tv_inputs", "TV of prompts", number("z.3f")),
    Column("tv_outputs", "TV of answers", number("z.3f")),
    Column("kl_outputs", "KL of answers, nats", number("z.3f")),
    Column("task", "Task"),
    Column("overlap", "Overlap", number("z.3f")),
    Column("conflict", "Conflict, nats", number("z.3f")),
    Column("how", "How"),
    Column("note", "Note"),
)
"""What people see of ``data_terms``."""


def model_terms(theory: Theory) -> pd.DataFrame:
    """A row for each constant of Theorems 3 and 4, and for the aligned model's own exact gap."""
    rows: list[dict[str, Any]] = []

    def add(term: str, unit: str, value: float | None, **more: Any) -> None:
        if value is not None:
            rows.append({"term": term, "unit": unit, "value": value} | more)

    add("Exact alignment gap of the aligned model", "nats", theory.alignment_gap_exact)
    for one in theory.slopes:
        note = f"sampled {amount(one.sampled or 0)}, by ascent {amount(one.ascent or 0)}"
        place = {"epsilon": one.epsilon, "note": note}
        add("Slope of the alignment loss", "nats / distance", one.largest, **place)
    for land in theory.smoothness:
        place = {"task": land.task, "note": f"{land.n} rows" if land.n else ""}
        unit = "nats / distance"
        add("Gradient of the task loss, adapter's rank", unit, land.gradient_norm, **place)
        add("Gradient of the task loss, full", unit, land.gradient_norm_full, **place)
        add("Curvature of the task loss", "nats / distance²", land.smoothness, **place)
    for task, nll in theory.aligned_nll.items():
        add("Task loss of the aligned model", "nats", nll, task=task)
    for name, tokens in theory.answer_tokens.items():
        kind, _, proxy = name.partition(":")
        of = {"note": f"proxy: {proxy}"} if kind == "proxy" and proxy else {"task": name}
        add("Mean length of an answer", "tokens", tokens, **of)
    columns = ["term", "task", "epsilon", "value", "unit", "note"]
    return pd.DataFrame(rows, columns=columns)


MODEL = (
    Column("term", "Quantity"),
    Column("task", "Task"),
    Column("epsilon", "Within distance", number("g")),
    Column("value", "Value", size),
    Column("unit", "Unit"),
    Column("note", "Note"),
)
"""What people see of ``model_terms``."""


def tax_table(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each task, method and strength whose alignment tax was measured; nats.

    ``share`` is the bound's share of the label's entropy; ``holds`` whether the mean tax is at
    most the mean bound.
    """
    rows: list[dict[str, Any]] = []
    measured = frame[frame["failed"].isna() & frame["tax"].notna()]
    variants = ["model", "task", "label", "method", "strength"]
    for (model, task, label, method, strength), cells in measured.groupby(variants, sort=False):
        place = f"{model}, {task}" if frame["model"].nunique() > 1 else task
        means = {name: mean_std(cells[name]).mean for name in TAX}
        bound, entropy = means["tax_bound"], means["label_entropy"]
        row = {"task": place, "series": label, "method": method, "strength": float(strength)}
        row |= {"seeds": len(cells)} | means
        row["holds"] = bool(means["tax"] <= bound) if math.isfinite(bound) else None
        row["share"] = bound / entropy if entropy else math.nan
        rows.append(row)
    columns = ["task", "series", "method", "strength", "seeds", *TAX, "share", "holds"]
    return pd.DataFrame(rows, columns=columns)


COLUMNS = (
    Column("task", "Task"),
    Column("series", "Method"),
    Column("strength", "Strength", number("g")),
    Column("tax", "Tax, nats", number("z.4f")),
    Column("tax_bound", "I(Y;C), nats", number("z.4f")),
    Column("holds", "Bound", lambda row, f: {True: "holds", False: "fails"}.get(row[f], "")),
    Column("label_entropy", "H(Y), nats", number("z.4f")),
    Column("share", "I(Y;C) / H(Y), %", number("z.1f", 100)),
    Column("information_zy", "I(Z;Y), nats", number("z.4f")),
    Column("tax_n", "Rows", number("z.0f")),
)
"""What people see of ``tax_table``."""


def _joined(texts: list[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))
