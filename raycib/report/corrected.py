"""Rates corrected for the judge's error, for people: a table, a warning, a line."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from raycib.counting import count
from raycib.metrics import Rate
from raycib.report.forms import Form, Row, ends, in_points, rate
from raycib.report.report import Report, Section
from raycib.report.scores import RATE_PARTS
from raycib.report.table import Column, Table
from raycib.results import CorrectedDifference, CorrectedRow, Correction

UNKNOWN = (
    "The judge's error is unknown: nobody labelled an answer, so the harmful response rates are "
    "what the judge says. --label-sheet 200 draws answers to label, and --labels FILE corrects the "
    "rates by them."
)
TEXT = (
    "What follows is corrected for the judge's error, which labels of answers show. "
    "Every other table, figure and claim is what the judge says."
)
CAPTION = (
    "Rates in % with 95 % intervals and the number of prompts. One error for all: Rogan and "
    "Gladen's formula with the judge's sensitivity and specificity over all rows. Own labels: "
    "prediction-powered, each row by its own labels alone, whatever the judge's error there. The "
    "first is too short where the judge errs a little more in some rows, which few labels do not "
    "show. Answers whose verdict could not be read are in neither."
)
DIFFERENCES = (
    "Rates less plain LoRA's, on the same prompts, in points with 95 % intervals over prompts. One "
    "error for all divides them by sensitivity + specificity - 1: a difference "
    "that is told from 0 stays told. Own labels: of both rows, drawn apart."
)


def with_corrected(report: Report) -> Report:
    """The report with the corrected rates, or with the warning that there are none."""
    found = report.results.correction
    if found is None:
        return replace(report, warnings=[*report.warnings, UNKNOWN])
    tables = [_table("corrected", found.rows, rate, f"{CAPTION} {_error(found)}")]
    if found.differences:
        tables.append(_table("corrected_differences", found.differences, _points, DIFFERENCES))
    section = Section("corrected", "Corrected for the judge's error", "Corrected", tables, TEXT)
    return report.with_section(section, notes=[_error(found)])


def _table(
    stem: str, rows: Sequence[CorrectedRow | CorrectedDifference], form: Form, caption: str
) -> Table:
    """Rates, or differences, as judged and as corrected in both ways."""

    def corrected(row: Row, field: str) -> str:
        return form(row, field) or "cannot be corrected"

    unit = "%" if form is rate else "points"
    columns = [
        Column("method", "Method"),
        Column("against", "Against", optional=True),
        Column("labelled", "Labels", optional=True),
        Column("hrr", f"HRR as judged, {unit}", form),
        Column("rogan_gladen", f"One error for all, {unit}", corrected),
        Column("prediction_powered", f"Own labels, {unit}", corrected),
    ]
    return Table(stem, pd.DataFrame([_flat(row) for row in rows]), columns, caption)


def _flat(row: CorrectedRow | CorrectedDifference) -> dict[str, Any]:
    names = ("method", "against", "labelled")
    found = {name: value for name, value in row.given().items() if name in names}
    for name in ("hrr", "rogan_gladen", "prediction_powered"):
        values: Rate | None = getattr(row, name)
        for part in ("value", "low", "high", "n"):
            found[name + RATE_PARTS[part]] = getattr(values, part) if values else None
    return found


def _points(row: Row, field: str) -> str:
    """ "+1.2 [-0.3, +2.7]": a difference in points with its interval."""
    value = in_points(math.nan if row[field] is None else row[field])
    return f"{value} {ends(100, 1, '+')(row, field)}" if value else ""


def _error(found: Correction) -> str:
    """How the judge errs, by which labels, and why no row is corrected by one error for all."""
    parts = [f"{count(found.labelled, 'label')} ({found.labels})"]
    for name in ("sensitivity", "specificity"):
        values: Rate | None = getattr(found, name)
        shown = "unknown"
        if values:
            low, high = 100 * (values.low or 0), 100 * (values.high or 0)
            shown = f"{100 * (values.value or 0):z.1f} % [{low:z.1f}, {high:z.1f}]"
        parts.append(f"{name} {shown}")
    if found.same_error_p is not None:
        parts.append(f"one error for all rows: p = {found.same_error_p:.3g}")
    why = f" {found.not_pooled[:1].upper()}{found.not_pooled[1:]}." * bool(found.not_pooled)
    return f"The judge by {'; '.join(parts)}.{why}"
