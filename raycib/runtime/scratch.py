"""The temp folder of a Ray of one's own: whatever its processes leave there goes with it.

vLLM, Ray's dashboard and Tune leave files and sockets in the temp folder, above all where they are
killed. So they have one of their own. It also tells whose they are: a process beside the driver
ends those that outlive it. Where that was killed too, the next driver removes the folder.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from raycib.environment import environment
from raycib.runtime import reaper

_PREFIX = "raycib-"
_FIRST_BYTES = 2**16
"""What the folder has to take. On a full disk Ray waits half a minute for its own first files, and
does not say why."""


class Scratch:
    """A folder that is held until it is removed, or its process ends."""

    def __init__(self, root: Path) -> None:
        """A new one in `root`, which is made; those that nobody holds there are removed. OSError
        where nothing can be written."""
        root.mkdir(parents=True, exist_ok=True)
        for left in root.glob(f"{_PREFIX}*"):
            if (lock := _lock(left)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
        while True:
            self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
            self._lock = _lock(self.folder)
            if self._lock is not None and self.folder.exists():
                break  # else one that begins at this moment has taken it for left
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(bytes(_FIRST_BYTES))
        except OSError:
            shutil.rmtree(self.folder)
            os.close(self._lock)
            raise
        others = [one.name for one in root.glob(f"session_*_{os.getpid()}")]
        about = str(self.folder), str(os.getpid()), *others
        # Of a session of its own: Ctrl-C is for the driver alone.
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", reaper.__file__, *about],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def as_temp_folder(self, more: Mapping[str, str]) -> AbstractContextManager[None]:
        """What is started in the block has it as its temp folder, and `more` variables."""
        # It outlives a sweep. By number: a user of a container may have no name.
        compiled = f"{tempfile.gettempdir()}/torchinductor_{os.getuid()}"
        theirs = {"TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR", compiled)}
        return environment({**theirs, **more, "TMPDIR": str(self.folder)})

    def remove(self) -> None:
        """It is gone with all that is in it, and with the processes that have it."""
        self._reaper.communicate()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(folder: Path) -> int | None:
    """A lock that ends with this process; None where another has it, or there is no such folder."""
    with suppress(OSError):
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError:
            os.close(lock)
    return None
