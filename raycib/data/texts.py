"""What counts as a text, and what of it is kept."""

import re
from decimal import Decimal
from typing import Any

from raycib.data.tables import Number, shown
from raycib.errors import UserError

_BLANK_LINES = re.compile(r"\A\s*[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_KINDS = {bool: "a boolean", list: "a list", dict: "an object", bytes: "bytes"}


def trimmed(text: str) -> str:
    """A text without blank lines before it and white space after it; its first line keeps its
    indentation, which is part of code."""
    return _BLANK_LINES.sub("", text.rstrip())


def text_of(value: Any, numbers: bool = True) -> str:
    """A value as text: "" for null (and NaN, as pandas writes it), a number as it is written.
    Raises `UserError` that names its type for anything else."""
    if value is None or (isinstance(value, (float, Decimal)) and value != value):
        return ""
    number = isinstance(value, (Number, int, float, Decimal)) and not isinstance(value, bool)
    if isinstance(value, str) and not number:
        return trimmed(value)
    if number and numbers and value not in (float("inf"), float("-inf")):
        return str(value)
    kind = "a number" if number else _KINDS.get(type(value), type(value).__name__)
    raise UserError(f"{shown(value)} is {kind}, not text")
