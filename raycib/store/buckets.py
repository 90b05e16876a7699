"""Results in an S3 bucket (or one that speaks S3), seen through a local folder of copies.

Objects below the store's prefix::

    <kind>/<key>/record.json      created only if there is none: this is the commit
    <kind>/<key>/<writer>/...     the files, each writer's apart, uploaded before the record
    .writing/<writer>             "<kind>/<key>", while a writer uploads; swept if it died
    .damaged/<kind>.<key>.<n>     the record of a result found damaged

Whatever is read is copied to a local ``Folders`` first and verified there like any other result.
Credentials, region and endpoint come from the environment as for every S3 client (``AWS_*``).
"""

import os
import re
import secrets
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from pathlib import Path

from raycib.cache import cache
from raycib.store.folders import DAMAGED, WRITING, Folders, is_dead
from raycib.store.sealed import RECORD, Damage, StoreError, decode, file_names, read_record


class Buckets:
    """Where a ``Store`` keeps sealed folders: a bucket. ``Folders`` does the same."""

    def __init__(self, url: str) -> None:
        """Open ``s3://bucket/prefix``; StoreError if it cannot be listed."""
        try:
            import obstore
            from obstore.exceptions import AlreadyExistsError, BaseError
            from obstore.store import S3Store
        except ImportError:
            raise StoreError(f"a store at {url} needs obstore: pip install 'raycib[s3]'") from None
        self.url = url.rstrip("/")
        self._obstore = obstore
        self._refusals = (BaseError, OSError, ValueError)
        self._exists = AlreadyExistsError
        self._creates_only_once = False
        endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT", "")
        name = sha256(f"{endpoint} {self.url}".encode()).hexdigest()[:16]
        self.copies = Folders(cache("store") / name)
        with self._telling("cannot open a store"):
            self._bucket = S3Store.from_url(
                self.url,
                client_options={
                    "allow_http": endpoint.startswith("http://"),
                    "connect_timeout": "10s",
                    "timeout": "1h",  # the usual 30 s would cut off a large file
                },
            )
            # A bucket that does not exist would otherwise look like one that is empty.
            next(iter(obstore.list(self._bucket, WRITING)), None)

    def scratch(self) -> AbstractContextManager[Path]:
        """An empty local folder for one writer, named after it; gone afterwards."""
        return self.copies.scratch()

    def claim(self, name: str, wait: bool) -> AbstractContextManager[bool]:
        """Among the processes of this machine: S3 has no lock that ends with its owner."""
        return self.copies.claim(name, wait)

    def check_writable(self, kinds: Collection[str]) -> None:
        """StoreError where nothing can be written, or no copy of a kind, here or in the bucket."""
        self.copies.check_writable(kinds)
        with self.scratch() as folder:
            self._delete([self._mark(folder.name, "")])

    def commit(self, folder: Path, kind: str, key: str) -> bool:
        """Upload a sealed folder, its record last; False if another writer was first."""
        writer, record = folder.name, folder / RECORD
        mark = self._mark(writer, f"{kind}/{key}")
        for name in file_names(folder):
            self._put(f"{kind}/{key}/{writer}/{name}", folder / name)
        # A create may be repeated after its answer was lost, and then finds itself in place.
        raw = record.read_bytes()
        created = self._create(f"{kind}/{key}/{RECORD}", raw)
        if not created and self._writer(kind, key) != writer:
            self._delete([*self._list(f"{kind}/{key}/{writer}"), mark])
            return False
        self._delete([mark])
        self.copies.commit(folder, kind, _copy(key, raw))
        return True

    def _mark(self, writer: str, what: str) -> str:
        """Say that `writer` uploads `what`; where that is said."""
        mark = f"{WRITING}/{writer}"
        self._put(mark, what.encode())
        if not self._creates_only_once and self._create(mark, b""):
            raise StoreError(
                f"the bucket of {self.url} overwrites what is created only if absent "
                "(If-None-Match), so two writers could mix; use one that honours it, or a folder"
            )
        self._creates_only_once = True
        return mark

    def fetch(self, kind: str, key: str) -> Path | None:
        """A local copy of ``kind/key``, not yet verified; None if the bucket has none."""
        raw = self._get(f"{kind}/{key}/{RECORD}")
        if raw is None:
            return None
        copy = self.copies.root / kind / _copy(key, raw)
        if not copy.exists():
            with self.scratch() as folder:
                self._download(folder, kind, key, raw)
                self.copies.commit(folder, kind, copy.name)  # or another process was first
        return copy

    def set_aside(self, kind: str, key: str) -> str | None:
        """Move a damaged result's record out of the way; None if only the local copy was hurt."""
        path = f"{kind}/{key}/{RECORD}"
        raw = self._get(path)
        if raw is None:
            return None
        try:
            read_record(self.copies.root / kind / _copy(key, raw), kind, key)
            return None  # another process has fetched it again meanwhile
        except Damage:
            self.copies.remove(kind, _copy(key, raw))
        with self.scratch() as folder:
            self._download(folder, kind, key, raw)
            try:
                read_record(folder, kind, key)
                return None
            except Damage:
                pass
        aside = f"{DAMAGED}/{kind}.{key}.{secrets.token_hex(4)}"
        self._put(aside, raw)
        # S3 has no delete-if-unchanged everywhere: a result stored between these two lines would
        # be forgotten and computed once more, but never read wrong.
        if self._get(path) == raw:
            self._delete([path])
        return f"{self.url}/{aside}"

    def keys(self, kind: str) -> list[str]:
        """The keys with a record under ``kind``, sorted; not verified."""
        paths = [path.split("/") for path in self._list(kind)]
        return sorted(path[1] for path in paths if len(path) == 3 and path[2] == RECORD)

    def remove(self, kind: str, key: str) -> None:
        """Remove ``kind/key`` if it is there: its record first, then its files."""
        path = f"{kind}/{key}/{RECORD}"
        raw = self._get(path)
        if raw is None:
            return
        self._delete([path])
        self.copies.remove(kind, _copy(key, raw))
        if writer := _writer(raw, kind, key):
            self._delete(self._list(f"{kind}/{key}/{writer}"))

    def sweep(self) -> None:
        """Remove what killed writers left, here and in the bucket."""
        self.copies.sweep()
        for mark in self._list(WRITING):
            writer = mark.rpartition("/")[2]
            if not is_dead(writer):
                continue
            kind, _, key = (self._get(mark) or b"").decode().partition("/")
            if key and (found := self._writer(kind, key)) != writer:
                if found == "":
                    continue  # whose record it is cannot be told before it has been set aside
                self._delete(self._list(f"{kind}/{key}/{writer}"))
            self._delete([mark])

    def _writer(self, kind: str, key: str) -> str | None:
        raw = self._get(f"{kind}/{key}/{RECORD}")
        return None if raw is None else _writer(raw, kind, key)

    def _download(self, folder: Path, kind: str, key: str, raw: bytes) -> None:
        """Fill ``folder`` with what the bucket has of a result; what is missing stays missing."""
        (folder / RECORD).write_bytes(raw)
        try:
            body = decode(raw, kind, key)
        except Damage:
            return  # the reader of this folder finds the same
        for name in body["files"]:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._telling(f"cannot read {kind}/{key}"), path.open("wb") as file:
                try:
                    source = f"{kind}/{key}/{body['writer']}/{name}"
                    for chunk in self._obstore.get(self._bucket, source).stream():
                        file.write(chunk)
                except FileNotFoundError:
                    path.unlink()

    def _get(self, path: str) -> bytes | None:
        with self._telling(f"cannot read {path}"):
            try:
                return bytes(self._obstore.get(self._bucket, path).bytes())
            except FileNotFoundError:
                return None

    def _put(self, path: str, content: bytes | Path) -> None:
        with self._telling(f"cannot write {path}"):
            self._obstore.put(self._bucket, path, content)

    def _create(self, path: str, content: bytes) -> bool:
        with self._telling(f"cannot write {path}"):
            try:
                self._obstore.put(self._bucket, path, content, mode="create", use_multipart=False)
            except self._exists:
                return False
            return True

    def _list(self, prefix: str) -> list[str]:
        with self._telling(f"cannot list {prefix}"):
            found = self._obstore.list(self._bucket, prefix).collect()
            return [entry["path"] for entry in found]

    def _delete(self, paths: list[str]) -> None:
        with self._telling("cannot delete"):
            self._obstore.delete(self._bucket, paths)

    @contextmanager
    def _telling(self, doing: str) -> Iterator[None]:
        """Any refusal of the bucket as one line."""
        try:
            yield
        except StoreError:
            raise
        except self._refusals as cause:
            said = re.search(r"<Message>(.*?)</Message>", str(cause)) or [None, str(cause)]
            reason = str(said[1]).splitlines()[0]
            raise StoreError(
                f"{doing} at {self.url}: {reason}; "
                "check the bucket's name, AWS_* in the environment and the network, then run again"
            ) from cause


def _copy(key: str, raw: bytes) -> str:
    """The name of a local copy: a result that replaces another never meets its copy."""
    return f"{key}.{sha256(raw).hexdigest()[:12]}"


def _writer(raw: bytes, kind: str, key: str) -> str:
    """Who wrote a record; "" if it is damaged."""
    try:
        return decode(raw, kind, key)["writer"]
    except Damage:
        return ""
