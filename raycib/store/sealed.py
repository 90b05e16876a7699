"""A sealed folder: files, and a ``record.json`` that holds the sha256 of each and of itself.

The format, one folder for each result::

    <kind>/<key>/record.json     format, kind, key, created, writer, files, about, sha256
    <kind>/<key>/...             the files named in the record

The last line of ``record.json`` is the sha256 of every byte before it, so that a flipped bit in
``about`` is noticed like one in a tensor. Every later format keeps that line: a reader can then
tell "damaged" from "written by a newer raycib".
"""

import errno as codes
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import msgspec

FORMAT = 1
RECORD = "record.json"
DISK_REFUSES = (codes.ENOSPC, codes.EDQUOT, codes.EIO, codes.EROFS)

_DECODER = msgspec.json.Decoder()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_FILE_PART = re.compile(r"[A-Za-z0-9._-]{1,200}")


class StoreError(OSError):
    """The store cannot be read or written; one line says what, where, and what to do."""


class Damage(Exception):
    """A result is there but is not what its writer wrote; the message says what is wrong."""


def store_error(doing: str, where: object, cause: OSError) -> StoreError:
    """``cause`` as one line for a person, with its ``errno`` kept."""
    error = StoreError(f"{doing} at {where}: {cause.strerror or cause}; {_advice(cause.errno)}")
    error.errno = cause.errno
    return error


@contextmanager
def telling(doing: str, where: object, only: Collection[int] = ()) -> Iterator[None]:
    """Any OSError inside (or one of ``only``) becomes a StoreError that says what and where."""
    try:
        yield
    except StoreError:
        raise
    except OSError as cause:
        if only and cause.errno not in only:
            raise
        raise store_error(doing, where, cause) from cause


def check_name(what: str, name: str) -> None:
    """Raise ValueError unless ``name`` is safe as a folder name and as part of an object name."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{what} {name!r} is not a safe name; use 1 to 200 of A-Z a-z 0-9 . _ -, "
            "beginning with a letter or digit"
        )


def seal(folder: Path, kind: str, key: str, about: Mapping[str, Any], writer: str) -> None:
    """Make everything in ``folder`` durable, then describe it in a record, written last.

    Raises ValueError for what a record cannot hold (links, sockets, odd file names), TypeError
    if ``about`` is not JSON (NaN and infinities are allowed, as Python writes them), and OSError
    if the disk refuses. An fsync that failed is never tried again: the caller drops the folder.
    """
    files: dict[str, dict[str, str | int]] = {}
    folders = [folder]
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise ValueError(
                f"{name!r} is not a plain file; a stored result holds plain files only"
            )
        if not _safe_file(name):
            raise ValueError(
                f"{name!r} cannot be a stored file's name; use A-Z a-z 0-9 . _ -, not {RECORD!r}"
            )
        if path.is_dir():
            folders.append(path)
            continue
        with path.open("rb") as file:
            files[name] = {"sha256": file_digest(file, "sha256").hexdigest(), "size": file.tell()}
            os.fsync(file.fileno())
    body = {
        "format": FORMAT,
        "kind": kind,
        "key": key,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "writer": writer,
        "files": files,
        "about": dict(about),
    }
    write_durably(folder / RECORD, _encode(body))
    for path in reversed(folders):
        sync_folder(path)


def read_record(
    folder: Path, kind: str, key: str, only: Collection[str] | None = None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The record in ``folder`` once its own hash and the hash of every file have been checked; of
    files that are not among ``only``, the size. With it the content of ``only``.

    Raises Damage if anything differs from what was written, StoreError if it cannot be read.
    """
    body = decode(_read(f"{folder}/{RECORD}", f"{kind}/{key}"), kind, key)
    content: dict[str, bytes] = {}
    for name, expected in body["files"].items():
        path = f"{folder}/{name}"
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != expected["size"]:
                    raise Damage(f"{name} has {size} bytes, {expected['size']} were written")
                if only is None:
                    found = file_digest(file, "sha256").hexdigest()
                elif name in only:
                    content[name] = file.read()
                    found = sha256(content[name]).hexdigest()
                else:
                    continue
                if found != expected["sha256"]:
                    raise Damage(f"{name} does not match its sha256")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Damage(f"{name} is missing") from None
        except OSError as cause:
            raise store_error(f"cannot read {name} of {kind}/{key}", path, cause) from cause
    return body, content


def decode(raw: bytes, kind: str, key: str) -> dict[str, Any]:
    """The content of a ``record.json``; Damage if it is not the one written for ``kind/key``."""
    head = raw[: -len(_seal_line(b""))]
    if raw != head + _seal_line(head):
        raise Damage(f"{RECORD} does not match its own sha256")
    body: dict[str, Any] = from_json(raw)
    if body["format"] != FORMAT:
        raise StoreError(
            f"{kind}/{key} has record format {body['format']}, this raycib reads {FORMAT}; "
            "it was written by a newer raycib: update this one"
        )
    if (body["kind"], body["key"]) != (kind, key):
        raise Damage(f"{RECORD} belongs to {body['kind']}/{body['key']}")
    for name in body["files"]:
        if not _safe_file(name):
            raise Damage(f"{RECORD} names a file {name!r} that no raycib would write")
    return body


def file_names(folder: Path) -> list[str]:
    """The names of all files in a sealed folder but the record's, sorted."""
    names = (path.relative_to(folder).as_posix() for path in _walk(folder) if path.is_file())
    return [name for name in names if name != RECORD]


def write_durably(path: Path, content: bytes) -> None:
    """Write a new file and fsync it; the folder that names it is the caller's to sync."""
    with path.open("xb", buffering=0) as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that the names in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode(body: dict[str, Any]) -> bytes:
    head = json.dumps(body, indent=1).removesuffix("\n}").encode()
    return head + _seal_line(head)


def _seal_line(head: bytes) -> bytes:
    return f',\n "sha256": "{sha256(head).hexdigest()}"\n}}\n'.encode()


def from_json(raw: bytes) -> Any:
    """A JSON value, with what Python's JSON has besides: NaN and infinities."""
    try:
        return _DECODER.decode(raw)
    except msgspec.DecodeError:
        return json.loads(raw)


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise Damage(f"{RECORD} is missing") from None
    except OSError as cause:
        raise store_error(f"cannot read {what}", path, cause) from cause


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _safe_file(name: str) -> bool:
    parts = name.split("/")
    return name != RECORD and all(
        _FILE_PART.fullmatch(part) and part not in (".", "..") for part in parts
    )


def _advice(errno: int | None) -> str:
    match errno:
        case codes.ENOSPC | codes.EDQUOT:
            return "free some space, then run again"
        case codes.EACCES | codes.EPERM | codes.EROFS:
            return "choose a store you may write, or change its permissions"
        case codes.ENOTDIR | codes.EEXIST:
            return "choose a folder, not a file"
        case _:
            return "check the disk, then run again"
