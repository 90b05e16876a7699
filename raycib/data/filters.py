"""Which entries of a table are meant, where a file holds two kinds of them."""

from array import array
from itertools import compress
from typing import Any

from raycib.counting import count
from raycib.data.columns import find_column, normal
from raycib.data.sources import Source
from raycib.data.tables import Entries, Table
from raycib.errors import UserError

MARKS = ("label", "is_safe", "safety", "prompt_harm_label", "type")
"""Columns that may mark a prompt or an answer as safe or unsafe."""
SAFE = {"safe", "benign", "harmless", "unharmful"}
UNSAFE = {"unsafe", "harmful"}
CONTRAST = "contrast_"
"""Begins the types of XSTest's unsafe prompts."""


def kept(table: Table, source: Source) -> Table:
    """The entries that the source's filters keep. Raises `UserError` where none is left, and where
    safe and unsafe ones stand side by side and no filter says which are meant: they would be
    counted as one kind."""
    names = table.names
    marks = sorted((n for n in names if normal(n) in MARKS), key=lambda n: MARKS.index(normal(n)))
    filters = [
        one._replace(column=find_column(one.column, names, table.where)) for one in source.filters
    ]
    if not any(one.column in marks for one in filters):
        for name in marks:
            _refuse_both(table, name)
    if not filters:
        return table
    stay, left = bytearray(), dict[str, None]()
    for entry in table.entries:
        stay.append(all(one.keeps(entry) for one in filters))
        if stay[-1]:
            left.update(dict.fromkeys(entry))
    said = " ".join(str(one) for one in filters)
    if not any(stay):
        raise UserError(f"{table.where}: none of {len(stay)} rows fits {said}; mend it")
    return Table(
        table.where,
        Entries(lambda: compress(table.entries, stay)),
        left,
        array("Q", compress(table.numbers, stay)),
        array("Q", compress(table.lines, stay)),
        (*table.notes, f"{sum(stay)} of {count(len(stay), 'row')} fit {said}"),
    )


def _refuse_both(table: Table, name: str) -> None:
    values = {_text(entry.get(name)) for entry in table.entries}
    safe, unsafe = _sides(values, normal(name))
    if safe and unsafe:
        one, other = min(safe), min(unsafe)
        both = f"#only={name}:{one}, #only={name}:{other}"
        if other.startswith(CONTRAST):
            both = f"#without={name}:{CONTRAST}*, #only={name}:{CONTRAST}*"
        raise UserError(
            f"{table.where} marks rows as safe and as unsafe in column {name!r}; say which are "
            f"meant: {both} or #only={name}:* for all"
        )


def _sides(found: set[str], name: str) -> tuple[set[str], set[str]]:
    if name == "is_safe":
        return found & {"true", "1", "1.0"}, found & {"false", "0", "0.0"}
    contrasts = {value for value in found if value.startswith(CONTRAST)}
    return found - contrasts if contrasts else found & SAFE, contrasts or found & UNSAFE


def _text(value: Any) -> str:
    return str(value).strip().casefold() if isinstance(value, str | bool | int | float) else ""
