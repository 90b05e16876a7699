"""Reading a file or a data set of the hub into a table: named columns, one entry a row.

Nothing is guessed: what is not clearly a table is refused with its row and line. A file of lines or
of Parquet is read as often as its table is gone through, entry by entry: it may be larger than
memory.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from raycib.errors import UserError

FORMATS = ".json, .jsonl, .csv, .tsv or .parquet file (the text ones also with .gz)"
BATCH = 1024
"""Rows of a Parquet file that are in memory at once."""
UNNAMED = ""
"""What a column without a name is called, such as the index that pandas writes."""


class Number(str):
    """A number of a JSON file as it is written there: 3.10 stays 3.10."""

    __slots__ = ()


class Entries:
    """What a file holds, read anew each time that one goes through it."""

    def __init__(self, read: Callable[[], Iterator[Any]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[Any]:
        return self._read()


class Table(NamedTuple):
    """Entries by column name, and where each stands."""

    where: str
    entries: Iterable[dict[str, Any]]
    """May be gone through again."""
    names: Mapping[str, None]
    """All columns, in the order in which they come."""
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
            return _csv(path, where, suffix)
        case ".jsonl" | ".ndjson":
            lines = array("Q", (number for number, _ in _filled_lines(path, where)))
            return checked(where, Entries(partial(_json_lines, path, where)), lines)
        case ".json":
            rows, beside = _listed(_json(_text(_content(path, where), where), where), where)
            notes = (f"not read, beside the rows: {listed(beside)}",) if beside else ()
            return checked(where, rows)._replace(notes=notes)
        case ".parquet":
            there = _there(path, where)
            return checked(where, Entries(partial(_parquet, there, where, first)))
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
    names: dict[str, None] = {}
    count = 0
    for count, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            place = Table(where, (), {}, range(1, count + 1), lines).place(count - 1)
            raise UserError(f"{place}: found {shown(entry)}, not named columns")
        names.update(dict.fromkeys(entry))
    return Table(where, entries, names, range(1, count + 1), lines)


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
        raise _unpackable(error, where) from error


@contextmanager
def _lines(path: Path, where: str, newline: str) -> Iterator[TextIO]:
    """A file of text, to be read line by line, unpacked; lines end as `newline` says and keep their
    ends."""
    packed = _there(path, where).suffix.lower() == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as raw:
            _refuse_wide(raw.read(4), where)
            raw.seek(0)
            yield io.TextIOWrapper(raw, encoding="utf-8-sig", newline=newline)  # type: ignore[arg-type]
    except UnicodeDecodeError:
        _text(_content(path, where), where)  # which says where in the file
        raise
    except (OSError, EOFError, zlib.error) as error:
        if not packed:
            raise
        raise _unpackable(error, where) from error


def _unpackable(error: Exception, where: str) -> UserError:
    return UserError(f"{where} is not a whole gzip file: {error}; fetch it again")


def _refuse_wide(head: bytes, where: str) -> None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or 0 in head:
        raise UserError(f"{where} is UTF-16 or UTF-32 text; save it as UTF-8")


def _text(raw: bytes, where: str) -> str:
    """UTF-8 text; line ends stay as they are."""
    _refuse_wide(raw[:4], where)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{where} is not UTF-8 text (byte {error.start}, line {line}); convert it"
        ) from error


def _csv(path: Path, where: str, suffix: str) -> Table:
    csv.field_size_limit(sys.maxsize)  # a response may be longer than the default 128 kB
    with _lines(path, where, "") as file:
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
            header = _named_once([_clean(name) for name in fields], where)
        elif len(fields) != len(header):
            raise UserError(
                f"{where}, row {len(lines) + 1} (line {line}): {len(fields)} fields under a "
                f"header of {len(header)}; put a value that has {delimiter!r} in it in quotes"
            )
        else:
            lines.append(line)
    notes = [f"columns parted by {delimiter!r}"] if delimiter not in ",\t" else []
    notes += [f"{blank} blank rows skipped"] if blank else []
    names = header or []

    def read() -> Iterator[dict[str, str]]:
        filled = (fields for _, fields in _records(path, where, how) if any(map(str.strip, fields)))
        return (dict(zip(names, fields, strict=True)) for fields in islice(filled, 1, None))

    columns, numbers = dict.fromkeys(names if lines else ()), range(1, len(lines) + 1)
    return Table(where, Entries(read), columns, numbers, lines, tuple(notes))


def _records(path: Path, where: str, how: Mapping[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """Records of a CSV file, each with the line on which it begins."""
    with _lines(path, where, "") as file:
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


def _clean(name: str) -> str:
    return name.replace("\ufeff", "").strip()


def _named_once(names: list[str], where: str) -> list[str]:
    for name, times in Counter(names).items():
        if name != UNNAMED and times > 1:
            raise UserError(f"{where} has two columns {shown(name)}; rename or remove one")
    return names


def _filled_lines(path: Path, where: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, numbered from 1."""
    with _lines(path, where, "\n") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


def _json_lines(path: Path, where: str) -> Iterator[Any]:
    for number, line in _filled_lines(path, where):
        yield _json(line.removesuffix("\n"), where, number)


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


def _parquet(path: Path, where: str, first: int | None) -> Iterator[Any]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _named_once(file.schema_arrow.names, where)
            batches = file.iter_batches(batch_size=min(first or BATCH, BATCH))
            yield from islice((row for one in batches for row in one.to_pylist()), first)
    except UserError:
        raise
    except Exception as error:  # Arrow's own errors, and of values that Python cannot hold
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{where} is not a readable Parquet file: {reason}") from error
