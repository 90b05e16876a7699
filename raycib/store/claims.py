"""Who makes a result: a lock on a file, which the system ends with its process, however that ends.

Locks are advice: a result is whole without them, and the first writer of a key wins. They keep two
sweeps on one store from computing the same.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EWOULDBLOCK
from pathlib import Path


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
