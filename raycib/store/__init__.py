"""What has been done, by key: a stage is trained once, ever.

A result is whole or absent. ``put`` writes files to a temporary folder, makes them durable, seals
them with a record of their hashes, and shows the folder by one rename (on a bucket: by creating
``record.json`` if there is none). The first writer of a key wins. ``get`` checks every hash each
time: a damaged result counts as absent, is moved aside, and is named in ``Store.damaged``.

A person may read a store with ``ls`` and ``cat``: ``<root>/<kind>/<key>/record.json``.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raycib.store.folders import Folders
from raycib.store.sealed import (
    DISK_REFUSES,
    Damage,
    StoreError,
    check_name,
    from_json,
    read_record,
    seal,
    telling,
)

if TYPE_CHECKING:
    from raycib.store.buckets import Buckets

__all__ = ["Record", "Store", "StoreError", "whole_root"]

ATTEMPTS = 5
"""How often a result that others replace or remove meanwhile is looked at again."""


@dataclass(frozen=True)
class Record:
    """One stored result; its files lie in ``folder`` and were verified when it was read."""

    kind: str
    """What it is: "stages", "generations", "verdicts" ..."""
    key: str
    """The full hash of what determines it."""
    about: dict[str, Any]
    """JSON for a person: spec, counts, versions."""
    files: dict[str, str]
    """File name to sha256."""
    folder: Path
    """Where the files lie on this machine."""
    created: str
    """When, in ISO 8601, to the second."""
    content: Mapping[str, bytes]
    """What is in the files that were asked for by name (`Store.get`); others are read when they
    are wanted."""

    def path(self, name: str) -> Path:
        """Where one file lies on this machine; KeyError if the result has no such file."""
        if name not in self.files:
            raise KeyError(
                f"{self.kind}/{self.key} has no file {name!r}; it has {sorted(self.files)}"
            )
        return self.folder / name

    def value(self, name: str) -> Any:
        """What is in a JSON file."""
        return from_json(self._read(name))

    def lines(self, name: str) -> list[Any]:
        """What is in a file of lines of JSON."""
        return [from_json(line) for line in self._read(name).splitlines()]

    def _read(self, name: str) -> bytes:
        return self.content[name] if name in self.content else self.path(name).read_bytes()


class Store:
    """Results by kind and key, in a folder (local or shared disk) or in a bucket."""

    def __init__(self, root: str | Path) -> None:
        """Open a store, which the first writing makes; StoreError if ``root`` can be none."""
        self.root = whole_root(str(root))
        """The same store from any process: an absolute folder, or a bucket's address."""
        self.damaged: list[str] = []
        """One line for each damaged result found, for the run's report."""
        self._place = _place(self.root)
        self._swept = False

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        """A store crosses processes as its root."""
        return Store, (self.root,)

    def check_writable(self, kinds: Collection[str] = ()) -> None:
        """StoreError if nothing can be written, or nothing of one of these kinds, before anything
        is computed for it."""
        self._place.check_writable(kinds)

    def put(
        self, kind: str, key: str, write: Callable[[Path], None], about: Mapping[str, Any]
    ) -> Record:
        """The result of ``kind/key``: what ``write(folder)`` leaves in an empty folder.

        If another writer was first, its result is returned and ours vanishes (``write`` is not
        called if the result is already there). ``about`` is read after ``write``. Whatever
        ``write`` raises is raised; nothing of it is kept. StoreError if the disk refuses.
        """
        if found := self.get(kind, key):
            return found
        doing = f"cannot write {kind}/{key} (nothing half-written was kept)"
        with telling(doing, self.root):
            self._sweep_once()
        with self._place.scratch() as folder:
            with telling(doing, self.root, only=DISK_REFUSES):
                write(folder)
            with telling(doing, self.root):
                seal(folder, kind, key, about, writer=folder.name)
                for _ in range(ATTEMPTS):
                    if self._place.commit(folder, kind, key):
                        break
                    if winner := self.get(kind, key):
                        return winner
        if written := self.get(kind, key):
            return written
        raise StoreError(
            f"{kind}/{key} at {self.root} cannot be read back as it was written; "
            f"check the disk, then run again ({'; '.join(self.damaged[-1:]) or 'it is gone'})"
        )

    def put_text(
        self, kind: str, key: str, file: str, text: str, about: Mapping[str, Any]
    ) -> Record:
        """The result of ``kind/key`` that is one file of text. Raises as ``put`` does."""

        def write(folder: Path) -> None:
            (folder / file).write_text(text, encoding="utf-8")

        return self.put(kind, key, write, about)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder beside the results, for files that are made before they are put: ``put``
        may move them. What a killed writer leaves in it is swept as all else."""
        with telling("cannot write", self.root, only=DISK_REFUSES):
            self._sweep_once()
            with self._place.scratch() as folder:
                yield folder

    @contextmanager
    def claim(self, kind: str, key: str, wait: bool = True) -> Iterator[bool]:
        """Make ``kind/key`` while nobody else does: whether it is ours in the block. Without
        ``wait`` it may not be. A claim ends with its process; in a bucket it is known to the
        processes of one machine alone. StoreError if the disk refuses."""
        check_name("kind", kind)
        check_name("key", key)
        with ExitStack() as held:
            with telling(f"cannot claim {kind}/{key}", self.root):
                mine = held.enter_context(self._place.claim(f"{kind}.{key}", wait))
            yield mine

    @contextmanager
    def claims(self, kind: str, keys: Collection[str]) -> Iterator[set[str]]:
        """Those of ``keys`` that nobody else is making, which are ours in the block. They are
        taken together, so that two who want the same do not get half each."""
        with ExitStack() as held:
            with self.claim(kind, "several"):
                mine = {
                    key for key in keys if held.enter_context(self.claim(kind, key, wait=False))
                }
            yield mine

    def get(self, kind: str, key: str, only: Collection[str] | None = None) -> Record | None:
        """The verified result of ``kind/key``, or None if there is none or it was damaged.

        Every file's hash is checked, or that of ``only`` some, whose content is kept, and of the
        others the size: whoever reads a curve need not read the weights beside it. StoreError if
        it cannot be read, or was written in a newer format.
        """
        check_name("kind", kind)
        check_name("key", key)
        with telling(f"cannot read {kind}/{key}", self.root):
            for _ in range(ATTEMPTS):
                folder = self._place.fetch(kind, key)
                if folder is None:
                    return None
                try:
                    body, content = read_record(folder, kind, key, only)
                except Damage as damage:
                    if self._set_aside(kind, key, damage):
                        return None
                    continue
                files = {name: entry["sha256"] for name, entry in body["files"].items()}
                return Record(kind, key, body["about"], files, folder, body["created"], content)
        raise StoreError(f"{kind}/{key} at {self.root} changes as it is read; run again")

    def records(self, kind: str) -> Iterator[Record]:
        """Every verified result of a kind, in the order of keys."""
        for key in self.keys(kind):
            if record := self.get(kind, key):
                yield record

    def keys(self, kind: str) -> list[str]:
        """The keys of a kind, sorted; cheap, so not verified."""
        check_name("kind", kind)
        with telling(f"cannot list {kind}", self.root):
            return self._place.keys(kind)

    def discard(self, kind: str, key: str) -> None:
        """Forget ``kind/key``; nothing happens if there is none."""
        check_name("kind", kind)
        check_name("key", key)
        with telling(f"cannot discard {kind}/{key}", self.root):
            self._place.remove(kind, key)

    def _sweep_once(self) -> None:
        """What killed writers of this host left behind is removed before the first writing."""
        if not self._swept:
            self._swept = True
            self._place.sweep()

    def _set_aside(self, kind: str, key: str, damage: Damage) -> bool:
        """Whether ``kind/key`` is now absent; False asks to look again."""
        try:
            aside = self._place.set_aside(kind, key)
        except OSError as cause:
            self.damaged.append(f"{kind}/{key}: {damage}; cannot be moved aside: {cause.strerror}")
            return True
        if aside is None:
            return False
        self.damaged.append(f"{kind}/{key}: {damage}; moved to {aside}")
        return True


def whole_root(root: str) -> str:
    """What `Store(root).root` would be, without opening or beginning a store."""
    if root.startswith("s3:/"):  # a Path has one slash too few
        return "s3://" + root.removeprefix("s3:").lstrip("/")
    return root if "://" in root else os.path.abspath(root)


def _place(root: str) -> "Folders | Buckets":
    scheme, separator, _ = root.partition("://")
    if not separator:
        return Folders(Path(root))
    if scheme != "s3":
        raise StoreError(f"a store lives in a folder or in s3://bucket/prefix, not in {root}")
    from raycib.store.buckets import Buckets

    return Buckets(root)
