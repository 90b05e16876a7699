"""Files that are whole or absent: written beside their place, then moved into it."""

import os
from pathlib import Path

from raycib.store.folders import claimed
from raycib.store.sealed import sync_folder


def write_bytes(path: Path, data: bytes) -> Path:
    """Replaces ``path`` by ``data``; a reader, or a crash, never meets half of it. One writer at a
    time: what a killed one left is the next one's to begin with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    with claimed(beside.with_suffix(".lock"), wait=True):
        try:
            with open(beside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)
    return path


def write_text(path: Path, text: str) -> Path:
    """Replaces ``path`` by ``text`` in UTF-8."""
    return write_bytes(path, text.encode("utf-8"))
