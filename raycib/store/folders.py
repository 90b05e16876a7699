"""Results as folders on a disk, local or shared: ``<root>/<kind>/<key>/``.

A result appears by one rename of a finished folder. Renaming a folder onto one that holds
anything fails on every POSIX file system and on NFS, so the first writer wins without a lock. A
killed one leaves nothing but a folder in ``<root>/.writing``, swept once it is surely dead.
"""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from errno import EWOULDBLOCK
from functools import lru_cache
from pathlib import Path

from raycib.store.sealed import (
    Damage,
    StoreError,
    read_record,
    store_error,
    sync_folder,
    telling,
)

WRITING = ".writing"
DAMAGED = ".damaged"
CLAIMS = ".claims"


class Folders:
    """Where a ``Store`` keeps sealed folders: a disk. ``Buckets`` does the same."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._durable_kinds: set[str] = set()
        there = next(one for one in (root, *root.parents) if os.path.lexists(one))
        if there.is_symlink() and not there.exists():
            raise StoreError(
                f"cannot make a store at {root}: {there} is a link to {os.readlink(there)}, which "
                "is not there; make that folder, or choose another"
            )
        if not there.is_dir():
            raise _refused("cannot make a store", root, errno.ENOTDIR)

    def check_writable(self, kinds: Collection[str]) -> None:
        """StoreError where nothing can be written, or nothing of some kind: folders may be several
        people's."""
        with self.scratch():
            pass
        for folder in (self.root / name for name in (CLAIMS, *kinds)):
            if os.path.lexists(folder) and not folder.is_dir():
                raise _refused("cannot write", folder, errno.ENOTDIR)
            if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
                raise _refused("cannot write", folder, errno.EACCES)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder on this disk for one writer, named after it; gone afterwards."""
        with telling("cannot begin to write", self.root):
            folder = self.root / WRITING / new_writer()
            _make_folder(self.root)
            folder.parent.mkdir(exist_ok=True)
            folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, folder: Path, kind: str, key: str) -> bool:
        """Show a sealed folder as ``kind/key``, all of it at once; False if another was first.

        If the rename cannot be made durable it is taken back, so that an error means "not there".
        """
        home = self.root / kind
        if kind not in self._durable_kinds:
            home.mkdir(exist_ok=True)
            sync_folder(self.root)
            self._durable_kinds.add(kind)
        try:
            os.rename(folder, home / key)
        except OSError as cause:
            # A shared disk may repeat a rename whose answer was lost: the folder is then gone
            # from here and the caller finds its own record in place.
            if cause.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.ENOENT):
                raise
            if cause.errno == errno.ENOENT and not (home / key).exists():
                raise
            sync_folder(home)
            return False
        try:
            sync_folder(home)
        except OSError:
            os.rename(home / key, folder)
            raise
        return True

    def fetch(self, kind: str, key: str) -> Path | None:
        """The folder of ``kind/key``, not yet verified; None if there is none."""
        folder = self.root / kind / key
        try:
            os.lstat(folder)
        except FileNotFoundError:
            return None
        return folder

    def set_aside(self, kind: str, key: str) -> Path | None:
        """Move a damaged result out of the way; None if it was replaced or removed meanwhile."""
        aside = self.root / DAMAGED / f"{kind}.{key}.{secrets.token_hex(4)}"
        try:
            aside.parent.mkdir(exist_ok=True)
            os.rename(self.root / kind / key, aside)
        except FileNotFoundError:
            return None
        try:
            read_record(aside, kind, key)
        except Damage:
            return aside
        except StoreError:
            pass
        # Someone replaced it between our look and our move: give it back.
        self.commit(aside, kind, key)
        shutil.rmtree(aside, ignore_errors=True)
        return None

    def keys(self, kind: str) -> list[str]:
        """The names under ``kind``, sorted; not verified."""
        try:
            return sorted(name for name in os.listdir(self.root / kind) if name[0] != ".")
        except FileNotFoundError:
            return []

    def remove(self, kind: str, key: str) -> None:
        """Remove ``kind/key`` if it is there; it disappears by one rename."""
        self._drop(self.root / kind / key)

    def sweep(self) -> None:
        """Remove what killed writers left. See ``is_dead``."""
        claims = self.root / CLAIMS
        for name in os.listdir(claims) if claims.exists() else ():
            with claimed(claims / name, wait=False):  # nobody's is gone afterwards
                pass
        writing = self.root / WRITING
        for name in os.listdir(writing) if writing.exists() else ():
            if is_dead(name):
                self._drop(writing / name)

    @contextmanager
    def claim(self, name: str, wait: bool) -> Iterator[bool]:
        """Whether ``name`` is this process's alone in the block."""
        folder = self.root / CLAIMS
        _make_folder(self.root)
        folder.mkdir(exist_ok=True)
        with claimed(folder / name, wait) as mine:
            yield mine

    def _drop(self, path: Path) -> None:
        """Take ``path`` out of sight by a rename, then remove it, if it is there.

        A writer wrongly thought dead then fails cleanly. Needs no free space, so that a full
        disk can be emptied.
        """
        if not os.path.lexists(path):
            return
        out_of_sight = self.root / WRITING / new_writer()
        out_of_sight.parent.mkdir(exist_ok=True)
        try:
            os.rename(path, out_of_sight)
        except FileNotFoundError:
            return
        sync_folder(path.parent)
        if out_of_sight.is_dir():
            shutil.rmtree(out_of_sight, ignore_errors=True)
        else:
            out_of_sight.unlink()


def _refused(doing: str, where: Path, code: int) -> StoreError:
    return store_error(doing, where, OSError(code, os.strerror(code)))


def new_writer() -> str:
    """A name no other writer has: host, boot, process namespace, process, its start, a number."""
    return f"{_this_process(os.getpid())}_{secrets.token_hex(8)}"


def is_dead(writer: str) -> bool:
    """Whether the process behind a writer's name is surely gone; no clock is asked.

    Only a process of this host can be judged: one of an earlier boot is dead; one of this boot
    and of this process namespace is dead if its pid is free or was given to another process.
    What cannot be read is no ground for a judgement.
    """
    match writer.split("_"), _this_process(os.getpid()).split("_"):
        case [host, boot, space, pid, start, _], [my_host, my_boot, my_space, _, _]:
            if host != my_host or not (boot and my_boot and start):
                return False
            if boot != my_boot:
                return True
            return space == my_space and _start(int(pid)) not in (start, "")
    return False


@lru_cache(maxsize=1)
def _this_process(pid: int) -> str:
    host = os.uname().nodename.replace("_", "-")
    machine = _text("/etc/machine-id")[:8]
    boot = _text("/proc/sys/kernel/random/boot_id")[:13]
    space = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    return f"{host}.{machine}_{boot}_{space}_{pid}_{_start(pid)}"


def _start(pid: int) -> str:
    """When ``pid`` began, in kernel ticks since boot; "free" if no such process, "" if hidden."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "free"
    except PermissionError:
        pass
    # The process's own name may hold spaces and brackets: count fields after the last bracket.
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    if not folder.parent.is_dir():
        _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


@contextmanager
def claimed(path: Path, wait: bool) -> Iterator[bool]:
    """Whether this process alone holds ``path`` in the block; ``wait`` until it does. Where the
    file system knows no locks, everybody does. Nothing of it is left."""
    lock, free = _lock(path, wait)
    try:
        yield free
    finally:
        if free:
            path.unlink(missing_ok=True)  # first: who waits for this file then makes another
        os.close(lock)


def _lock(path: Path, wait: bool) -> tuple[int, bool]:
    """An open file at ``path``, and whether it is ours."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as refused:
            return lock, refused.errno != EWOULDBLOCK
        except BaseException:  # interrupted while it waited
            os.close(lock)
            raise
        if _is_at(lock, path):
            return lock, True
        os.close(lock)  # whoever had it has taken it away


def _is_at(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), os.stat(path))
    except FileNotFoundError:
        return False
