"""Files that are whole or absent: written beside their place, then moved into it."""

import os
import secrets
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> Path:
    """Replaces ``path`` by ``data``; a reader, or a crash, never meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(name, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path


def write_text(path: Path, text: str) -> Path:
    """Replaces ``path`` by ``text`` in UTF-8."""
    return write_bytes(path, text.encode("utf-8"))
