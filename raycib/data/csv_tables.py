"""Tables of CSV files, read record by record as often as one goes through them."""

import csv
import io
import sys
from array import array
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from raycib.counting import count
from raycib.data.tables import Entries, Table, named_once
from raycib.data.text_files import open_lines
from raycib.errors import UserError


def csv_table(path: Path, where: str, suffix: str) -> Table:
    """The table of a file of comma- or tab-separated values; `UserError` for any other."""
    csv.field_size_limit(sys.maxsize)  # a response may be longer than the default 128 kB
    with open_lines(path, where, "") as file:
        head = file.read(100_000)
    delimiter = "\t" if suffix == ".tsv" else _delimiter(head)
    # Written with ", " between columns, a quote is only seen behind the blank.
    blanks = all(name.startswith(" ") for name in _header(head, delimiter)[1:])
    how = {"delimiter": delimiter, "skipinitialspace": blanks, "strict": True}
    lines, header, blank = array("Q"), None, 0
    for line, fields in _records(path, where, how):
        if not any(field.strip() for field in fields):
            blank += len(fields) > 1
        elif header is None:
            header = named_once([name.replace("\ufeff", "").strip() for name in fields], where)
        elif len(fields) != len(header):
            raise UserError(
                f"{where}, row {len(lines) + 1} (line {line}): {len(fields)} fields under a "
                f"header of {len(header)}; put a value that has {delimiter!r} in it in quotes"
            )
        else:
            lines.append(line)
    notes = [f"columns parted by {delimiter!r}"] if delimiter not in ",\t" else []
    notes += [f"{count(blank, 'blank row')} skipped"] if blank else []
    names = header or []

    def read() -> Iterator[dict[str, str]]:
        filled = (fields for _, fields in _records(path, where, how) if any(map(str.strip, fields)))
        return (dict(zip(names, fields, strict=True)) for fields in islice(filled, 1, None))

    columns, numbers = dict.fromkeys(names if lines else ()), range(1, len(lines) + 1)
    return Table(where, Entries(read), columns, numbers, lines, tuple(notes))


def _records(path: Path, where: str, how: Mapping[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """Records of a CSV file, each with the line on which it begins."""
    with open_lines(path, where, "") as file:
        reader = csv.reader(file, **how)
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise UserError(
                    f"{where}, line {line} is not CSV: {error}; mend or convert it"
                ) from error
            yield line, fields


def _header(text: str, delimiter: str) -> list[str]:
    """The first record that is not empty."""
    start = io.StringIO(text[:100_000], newline="")
    try:
        return next(filter(None, csv.reader(start, delimiter=delimiter)), [])
    except csv.Error:
        return []


def _delimiter(text: str) -> str:
    """What parts the columns of a CSV file: commas, or what else alone parts its header. Rows that
    then have other numbers of fields are refused."""
    if len(_header(text, ",")) > 1:
        return ","
    others = [mark for mark in ";\t|" if len(_header(text, mark)) > 1]
    return others[0] if len(others) == 1 else ","
