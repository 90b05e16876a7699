"""Reading a file or a data set of the hub into a table: named columns, one entry a row.

Nothing is guessed: what is not clearly a table is refused with its row and line.
"""

import csv
import gzip
import io
import json
import os
import reprlib
import sys
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raycib.errors import UserError

FORMATS = ".json, .jsonl, .csv, .tsv or .parquet file (the text ones also with .gz)"
UNNAMED = ""
"""What a column without a name is called, such as the index that pandas writes."""


class Number(str):
    """A number of a JSON file as it is written there: 3.10 stays 3.10."""

    __slots__ = ()


class Table(NamedTuple):
    """Entries by column name, and where each stands."""

    where: str
    entries: list[dict[str, Any]]
    numbers: Sequence[int]
    """The row of each in the file, from 1."""
    lines: Sequence[int] = ()
    """The line on which each begins, where the file has lines."""
    notes: tuple[str, ...] = ()
    """What reading it left out, in words."""

    def place(self, index: int) -> str:
        """Where an entry is, for people."""
        line = f" (line {self.lines[index]})" if self.lines else ""
        return f"{self.where}, row {self.numbers[index]}{line}"


def file_table(name: str, first: int | None = None) -> Table:
    """The table in a file; `UserError` for anything that is none. Of a Parquet file, which may be
    larger than memory, no more than the `first` rows are read."""
    path = Path(os.path.expanduser(name))
    where = repr(str(path))
    suffix = Path(path.stem if path.suffix.lower() == ".gz" else path).suffix.lower()
    match suffix:
        case ".csv" | ".tsv":
            return _csv(_text(_content(path, where), where), where, suffix)
        case ".jsonl" | ".ndjson":
            lines = array("Q")
            text = _text(_content(path, where), where)
            return checked(where, _json_lines(text, where, lines), lines)
        case ".json":
            rows, beside = _listed(_json(_text(_content(path, where), where), where), where)
            notes = (f"not read, beside the rows: {listed(beside)}",) if beside else ()
            return checked(where, rows)._replace(notes=notes)
        case ".parquet":
            return checked(where, _parquet(_there(path, where), where, first))
        case _:
            _there(path, where)  # which is told first
            raise UserError(f"{where} ends in {suffix!r}; give a {FORMATS}")


def shown(value: Any) -> str:
    """A value in a few characters for a message, however large or deep it is."""
    return value[:30] if isinstance(value, Number) else reprlib.repr(value)


def listed(names: Iterable[str]) -> str:
    """Names of columns for people: a dozen at most, each in characters that any terminal prints."""
    names = sorted(names)
    parts = ["(no name)" if name == UNNAMED else ascii(name[:40]) for name in names[:12]]
    return ", ".join(parts) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def checked(where: str, entries: Iterable[Any], lines: Sequence[int] = ()) -> Table:
    """The table of these entries; `UserError` for one that has no named columns."""
    found = list(entries)
    table = Table(where, found, range(1, len(found) + 1), lines)
    for index, entry in enumerate(table.entries):
        if not isinstance(entry, dict):
            raise UserError(f"{table.place(index)}: found {shown(entry)}, not named columns")
    return table


def _there(path: Path, where: str) -> Path:
    """The file, which can be read and is no pointer to one."""
    try:
        if not path.is_file():  # neither a folder nor a pipe, which would wait for ever
            there = "no ordinary file" if path.exists() else "no data file"
            raise UserError(f"{there} at {where}; give a {FORMATS}")
        with path.open("rb") as file:
            head = file.read(len(_POINTER))
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}; check the path") from error
    if head == _POINTER:
        raise UserError(f"{where} is a Git LFS pointer, not the file itself; run `git lfs pull`")
    return path


_POINTER = b"version https://git-lfs"


def _content(path: Path, where: str) -> bytes:
    """What a file holds, unpacked."""
    raw = _there(path, where).read_bytes()
    try:
        return gzip.decompress(raw) if path.suffix.lower() == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{where} is not a whole gzip file: {error}; fetch it again") from error


def _text(raw: bytes, where: str) -> str:
    """UTF-8 text; line ends stay as they are."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or 0 in raw[:4]:
        raise UserError(f"{where} is UTF-16 or UTF-32 text; save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{where} is not UTF-8 text (byte {error.start}, line {line}); convert it"
        ) from error


def _csv(text: str, where: str, suffix: str) -> Table:
    csv.field_size_limit(sys.maxsize)  # a response may be longer than the default 128 kB
    delimiter = "\t" if suffix == ".tsv" else _delimiter(text)
    # Written with ", " between columns, a quote is only seen behind the blank.
    blanks = all(name.startswith(" ") for name in _header(text, delimiter)[1:])
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=blanks, strict=True
    )
    entries: list[dict[str, Any]] = []
    lines = array("Q")
    header: list[str] | None = None
    blank = 0
    for line, fields in _records(reader, where):
        if not any(field.strip() for field in fields):
            blank += len(fields) > 1
        elif header is None:
            header = _named_once([_clean(name) for name in fields], where)
        elif len(fields) != len(header):
            raise UserError(
                f"{where}, row {len(entries) + 1} (line {line}): {len(fields)} fields under a "
                f"header of {len(header)}; put a value that has {delimiter!r} in it in quotes"
            )
        else:
            entries.append(dict(zip(header, fields, strict=True)))
            lines.append(line)
    notes = [f"columns parted by {delimiter!r}"] if delimiter not in ",\t" else []
    notes += [f"{blank} blank rows skipped"] if blank else []
    return Table(where, entries, range(1, len(entries) + 1), lines, tuple(notes))


def _records(reader: Any, where: str) -> Iterator[tuple[int, list[str]]]:
    """Records of a CSV file, each with the line on which it begins."""
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


def _clean(name: str) -> str:
    return name.replace("\ufeff", "").strip()


def _named_once(names: list[str], where: str) -> list[str]:
    for name, times in Counter(names).items():
        if name != UNNAMED and times > 1:
            raise UserError(f"{where} has two columns {shown(name)}; rename or remove one")
    return names


def _json_lines(text: str, where: str, lines: array) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            lines.append(number)
            yield _json(line, where, number)


def _json(text: str, where: str, line: int | None = None) -> Any:
    """A JSON value, numbers as they are written; NaN and infinities are numbers of Python's."""
    where = f"{where}, line {line}" if line else where
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        at = f"column {error.colno}" if line else f"line {error.lineno}, column {error.colno}"
        more = line is None and error.msg == "Extra data"
        mend = "name it .jsonl if it has a row on each line" if more else "mend or convert it"
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
        raise UserError(f"{where} holds {_kind(table)}, not a list of rows; give one")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"{where} has columns of unequal length, {shown(lengths)}; mend it")
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, values, strict=True)) for values in rows], beside


def _kind(value: Any) -> str:
    return "a number" if isinstance(value, Number) else type(value).__name__


def _parquet(path: Path, where: str, first: int | None) -> list[Any]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _named_once(file.schema_arrow.names, where)
            if first is None:
                return file.read().to_pylist()
            found: list[Any] = []
            for batch in file.iter_batches(batch_size=first):
                found += batch.to_pylist()
                if len(found) >= first:
                    break
            return found[:first]
    except UserError:
        raise
    except Exception as error:  # Arrow's own errors, and of values that Python cannot hold
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{where} is not a readable Parquet file: {reason}") from error
