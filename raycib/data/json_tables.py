"""Tables of JSON files: one value of rows or columns, or a row on each line."""

import json
from array import array
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from raycib.data.tables import Entries, Number, Table, checked, listed, shown
from raycib.data.text_files import filled_lines, whole_text
from raycib.errors import UserError


def json_lines_table(path: Path, where: str) -> Table:
    """The table of a file with a row on each line, read anew each time."""
    lines = array("Q", (number for number, _ in filled_lines(path, where)))
    return checked(where, Entries(partial(_json_lines, path, where)), lines)


def json_table(path: Path, where: str) -> Table:
    """The table of a file that is one JSON value."""
    rows, beside = _listed(_json(whole_text(path, where), where), where)
    notes = (f"not read, beside the rows: {listed(beside)}",) if beside else ()
    return checked(where, rows)._replace(notes=notes)


def _json_lines(path: Path, where: str) -> Iterator[Any]:
    for number, line in filled_lines(path, where):
        yield _json(line.removesuffix("\n"), where, number)


def _json(text: str, where: str, line: int | None = None) -> Any:
    """A JSON value, numbers as they are written; NaN and infinities are numbers of Python's."""
    where = f"{where}, line {line}" if line else where
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        at = f"column {error.colno}" if line else f"line {error.lineno}, column {error.colno}"
        mend = "mend or convert it"
        if line is None and error.msg == "Extra data":
            mend = "name it .jsonl if it has a row on each line"
        elif line and text.strip() == "[":
            mend = "name it .json if it is one list of rows"
        raise UserError(f"{where} is not JSON: {error.msg} ({at}); {mend}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}; mend or convert it") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"an object has {shown(twice)} twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=Number, parse_float=Number)


def _listed(table: Any, where: str) -> tuple[list[Any], list[str]]:
    """Rows of a JSON file, a list of them, alone or under one name, or columns by name; and the
    names of what stands beside them."""
    if isinstance(table, list):
        return table, []
    columns, beside = {}, []
    if isinstance(table, dict):  # {"instructions": [...], "inputs": []}
        columns = {name: v for name, v in table.items() if isinstance(v, list) and v}
        beside = [name for name, value in table.items() if name not in columns and value != []]
    of_rows = [name for name, values in columns.items() if isinstance(values[0], dict)]
    if len(of_rows) > 1:
        raise UserError(f"{where} has rows under {shown(of_rows)}; save one of them as a list")
    if of_rows:
        return columns[of_rows[0]], [*beside, *(columns.keys() - of_rows)]
    if not columns:
        kind = "a number" if isinstance(table, Number) else type(table).__name__
        raise UserError(f"{where} holds {kind}, not a list of rows; give one")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"{where} has columns of unequal length, {shown(lengths)}; mend it")
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, values, strict=True)) for values in rows], beside
