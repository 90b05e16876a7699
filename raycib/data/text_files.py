"""Reading a file as UTF-8 text, packed or not; what is no such file is refused with its place."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from raycib.errors import UserError

FORMATS = ".json, .jsonl, .csv, .tsv or .parquet file (the text ones also with .gz)"
_POINTER = b"version https://git-lfs"


def ordinary_file(path: Path, where: str) -> Path:
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


def _content(path: Path, where: str) -> bytes:
    """What a file holds, unpacked."""
    raw = ordinary_file(path, where).read_bytes()
    try:
        return gzip.decompress(raw) if path.suffix.lower() == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise _unpackable(error, where) from error


def whole_text(path: Path, where: str) -> str:
    """All of a file of text; line ends stay as they are."""
    return _decoded(_content(path, where), where)


@contextmanager
def open_lines(path: Path, where: str, newline: str) -> Iterator[TextIO]:
    """A file of text, to be read line by line, unpacked; lines end as `newline` says and keep their
    ends."""
    packed = ordinary_file(path, where).suffix.lower() == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as raw:
            _refuse_wide(raw.read(4), where)
            raw.seek(0)
            yield io.TextIOWrapper(raw, encoding="utf-8-sig", newline=newline)  # type: ignore[arg-type]
    except UnicodeDecodeError:
        _decoded(_content(path, where), where)  # which says where in the file
        raise
    except (OSError, EOFError, zlib.error) as error:
        if not packed:
            raise
        raise _unpackable(error, where) from error


def filled_lines(path: Path, where: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, numbered from 1."""
    with open_lines(path, where, "\n") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


def _unpackable(error: Exception, where: str) -> UserError:
    return UserError(f"{where} is not a whole gzip file: {error}; fetch it again")


def _refuse_wide(head: bytes, where: str) -> None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or 0 in head:
        raise UserError(f"{where} is UTF-16 or UTF-32 text; save it as UTF-8")


def _decoded(raw: bytes, where: str) -> str:
    _refuse_wide(raw[:4], where)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{where} is not UTF-8 text (byte {error.start}, line {line}); convert it"
        ) from error
