"""Numbers as people read them: one way for each, in text and in the columns of tables."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from raycib.report.scores import BEFORE
from raycib.report.text import one_line

Row = Mapping[str, Any]
Form = Callable[[Row, str], str]
"""What people read of a field of a row."""

BEFORE_ALIGNMENT = "before alignment"
NOT_MEASURED = "not measured"


def said(row: Row, field: str) -> str:
    """The value as it is; "" where there is none."""
    return "" if _lacks(row[field]) else str(row[field])


def short(limit: int) -> Form:
    """The value on one line of at most ``limit`` characters."""
    return lambda row, field: one_line(said(row, field), limit)


def number(form: str, factor: float = 1) -> Form:
    """A number times ``factor`` in a format of Python's; "" where there is none."""

    def form_(row: Row, field: str) -> str:
        value = row[field]
        return "" if _lacks(value) else format(value * factor if factor != 1 else value, form)

    return form_


def mean(factor: float = 1, decimals: int = 3, around: str = "std", told: bool = True) -> Form:
    """ "20.6 ± 2.5": ``<field>_mean`` and ``<field>_<around>``, the mean alone where ``around`` is
    "" or no number.

    Where there is no mean: "not measured" if cells finished without it, else "", as in the row of
    a cell that failed or of the model before; always "" if not ``told``.
    """

    def form(row: Row, field: str) -> str:
        std = row[f"{field}_{around}"] if around else math.nan
        text = spread(row[f"{field}_mean"], std, factor, decimals)
        if text or not told:
            return text
        fine_tuned = row["method"] not in ("", BEFORE)
        return NOT_MEASURED if row["seeds"] and fine_tuned else ""

    return form


def ends(factor: float = 1, decimals: int = 3, sign: str = "") -> Form:
    """ "[15.9, 26.0]": ``<field>_low`` and ``<field>_high``, "" where there is no interval."""

    def form(row: Row, field: str) -> str:
        low, high = row[f"{field}_low"], row[f"{field}_high"]
        if _lacks(low) or _lacks(high):
            return ""
        return "[" + ", ".join(f"{x * factor:{sign}z.{decimals}f}" for x in (low, high)) + "]"

    return form


def of_prompts(row: Row, field: str) -> str:
    """ "[15.9, 26.0] of 260": the ends of a rate in per cent, and the count behind them."""
    text = ends(100, 1)(row, field)
    return f"{text} of {int(row[f'{field}_n'])}" if text else ""


def interval(factor: float = 1, decimals: int = 3) -> Form:
    """ "20.6 [15.9, 26.0]": a value with ``<field>_low`` and ``<field>_high`` as far as there are
    any; "" where there is no value."""

    def form(row: Row, field: str) -> str:
        if _lacks(row.get(field)):
            return ""
        text = f"{row[field] * factor:z.{decimals}f}"
        lacking = any(_lacks(row.get(f"{field}_{end}")) for end in ("low", "high"))
        return text if lacking else f"{text} {ends(factor, decimals)(row, field)}"

    return form


def rate(row: Row, field: str) -> str:
    """ "20.6 [15.9, 26.0] of 260": a rate in per cent with its interval and count."""
    text, n = interval(100, 1)(row, field), row.get(f"{field}_n")
    return f"{text} of {int(n)}" if n is not None and text and not _lacks(n) else text


def points(row: Row, field: str) -> str:
    """A difference of fractions as "+1.2 ± 0.3" points: ``<field>_mean`` and ``<field>_std``."""
    return in_points(row[f"{field}_mean"], row[f"{field}_std"])


def p_value(row: Row, field: str) -> str:
    """ ".0123" as "0.0123", the very small as "< 0.0001"."""
    return "" if _lacks(row[field]) else p_text(row[field])


def spread(mean: float, std: float, factor: float = 1, decimals: int = 2, sign: str = "") -> str:
    """ "mean ± std", the mean alone where there is no std, "" where there is no mean."""
    if not math.isfinite(mean):
        return ""
    tail = f" ± {std * factor:z.{decimals}f}" if math.isfinite(std) else ""
    return f"{mean * factor:{sign}z.{decimals}f}{tail}"


def in_points(mean: float, std: float = math.nan) -> str:
    """A difference of fractions as "+1.2 ± 0.3" points, "" where there is none."""
    return spread(mean, std, 100, 1, "+")


def share(value: float) -> str:
    """A rate in [0, 1] as "20.6 %"; "not measured" where there is none."""
    return f"{100 * value:z.1f} %" if math.isfinite(value) else NOT_MEASURED


def percent(mean: float, std: float) -> str:
    """A mean of rates with its spread as "20.6 ± 2.5 %"; "not measured" where there is none."""
    text = spread(mean, std, 100, 1)
    return f"{text} %" if text else NOT_MEASURED


def p_text(p: float) -> str:
    """ ".0123" as "0.0123", the very small as "< 0.0001"."""
    return "<\u00a00.0001" if p < 0.0001 else f"{p:z.4f}"


def p_equals(p: float) -> str:
    """ "p = 0.0123", or "p < 0.0001"."""
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _lacks(value: Any) -> bool:
    return value is None or bool(pd.isna(value))
