"""A program that connects to what is no Ray, again and again. It mostly waits: it runs beside other
tests."""

import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from running import Running, ray_folder

CONNECT = """
import json, os, psutil, sys, time
from raycib.errors import UserError
from raycib.runtime.cluster import connect
from raycib.config.presets import PRESETS
for name, value in json.loads(sys.argv[1]):
    os.environ |= {name: value}
    began = time.monotonic()
    try: connect(PRESETS["world"].execution)
    except UserError as error: said = str(error)
    else: said = "connected"
    del os.environ[name]
    left = [child.name() for child in psutil.Process().children(recursive=True)]
    print(json.dumps([said, left, time.monotonic() - began]))
"""
REFUSED = {
    "127.0.0.1:1": "Connection refused",
    "validate": "Invalid address format",
    "http://127.0.0.1:8265": "ray job submit",
    "ray://127.0.0.1:10001": "ray job submit",
    "127.0.0.1:99999999": "127.0.0.1:99999999",
}
"""Addresses without a cluster, and what is said of them."""


class Connected(NamedTuple):
    """How `connect` ended as a sweep calls it."""

    said: str
    left: list[str]
    """Processes that it left behind."""
    seconds: float


@contextmanager
def connecting() -> Iterator[Callable[[], list[Connected]]]:
    """A program that connects to what is no Ray, one after the other, while other tests run: to the
    addresses of `REFUSED`, to a server that never answers, and where Ray cannot start."""
    with ray_folder() as temp, socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        asked = [("RAY_ADDRESS", one) for one in (*REFUSED, address)]
        asked += [("RAY_TMPDIR", "/proc/nowhere")]
        command = [sys.executable, "-c", CONNECT, json.dumps(asked)]
        running = Running(command, temp, temp / "connect")

        def ended() -> list[Connected]:
            """One for each, once all are done."""
            lines = running.wait(200).out.splitlines()
            return [Connected(*json.loads(line)) for line in lines if line.startswith("[")]

        yield ended
        running.clean()
