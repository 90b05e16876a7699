"""Ends what a Ray of one's own started, once its driver is gone, however it went.

``python reaper.py FOLDER DRIVER [SESSION ...]`` waits for the end of its input, which the driver
holds open. Then it ends all processes that have the folder as their temp folder, or that write to
the logs of the driver's session of Ray, and removes it. The sessions named are others', of drivers
that had the same id before.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

GRACE_S = 5.0
"""Most end by themselves when their Ray is gone, and clean up."""


def users(folder: str, driver: int, others: Sequence[str]) -> list[psutil.Process]:
    """Processes that were started with `folder` as their temp folder, or by the Ray of the process
    `driver`, whose id its sessions are named by: some write their title over their environment."""
    root = re.escape(os.path.realpath(os.path.dirname(folder)))
    logs = re.compile(rf"{root}/(session_[^/]*_{driver})/logs/")

    def ours(path: str) -> bool:
        session = logs.match(path)
        return session is not None and session[1] not in others

    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != driver and (
                process.environ().get("TMPDIR") == folder
                or any(ours(one.path) for one in process.open_files())
            ):
                found.append(process)
    return found


def reap(folder: str, driver: int, others: Sequence[str]) -> None:
    """No process has the folder as its temp folder any more, and it is gone. What cannot be killed
    is left after twice the grace."""
    began = time.monotonic()
    while (left := users(folder, driver, others)) and time.monotonic() < began + 2 * GRACE_S:
        if time.monotonic() > began + GRACE_S:
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.read()
    reap(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
