"""Whether what holds a Ray together is still there, and word that it is about to go.

Calls into a Ray that is gone wait for it for a minute, which no signal interrupts, and then end the
process without a line of ours. A machine that is about to go is what Ray calls draining: `ray start
--block` drains its node when it gets SIGTERM, as Kubernetes sends it and `ray drain-node` asks for
it. No new work comes to such a node, and what runs there may run until the machine is gone.
"""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray._private.state import state  # as Ray Train asks; there is no public way
from ray._private.worker import global_worker

LOOK_S = 1.0
HEAD_S = 40.0
"""A head with its state elsewhere may come back; Ray itself gives it 60 s."""
NODE_S = 0.0
"""A raylet does not come back, and without it Ray ends the driver at some later call."""


def parts() -> dict[str, tuple[Any, float]]:
    """Of the Ray that this process is connected to: where each listens, and the seconds that it
    may be silent."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    node: Any = global_worker.node
    return {
        "the head of the cluster": ((host.strip("[]"), int(port)), HEAD_S),
        "the raylet of the driver's node": (node.raylet_socket_name, NODE_S),
    }


class Watch:
    """Tries to reach all `parts`, in a thread, until closed; calls `lost` once with what has not
    been there for longer than it may."""

    def __init__(self, parts: Mapping[str, tuple[Any, float]], lost: Callable[[str], None]) -> None:
        self._parts, self._lost = parts, lost
        self._closed = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def check(self) -> None:
        """Call `lost` now where what may not be silent is: `ray.shutdown` ends a process whose
        raylet is gone, without a line."""
        for name, (place, limit) in self._parts.items():
            if not limit and not _listens(place):
                self._lost(f"{name} is gone")

    def close(self) -> None:
        """What ends now ends by itself."""
        self._closed.set()

    def _look(self) -> None:
        seen = dict.fromkeys(self._parts, time.monotonic())
        while not self._closed.wait(LOOK_S):
            began = time.monotonic()
            for name, (place, limit) in self._parts.items():
                if _listens(place):
                    seen[name] = time.monotonic()
                elif began - seen[name] > limit:
                    return self._lost(f"{name} is gone")


def _listens(place: Any) -> bool:
    """Whether somebody listens at a (host, port), or at the path of a socket."""
    try:
        if not isinstance(place, str):
            socket.create_connection(place, timeout=5).close()
            return True
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(5)
            one.connect(place)
            return True
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:  # a socket without a listener refuses: else it, or this process, is busy
        return isinstance(place, str)


NOTICE_S = 2.0
"""Between two looks whether this node is to go."""


class Notice:
    """Call it: whether this process's node is to go. A thread asks Ray, so a call costs nothing."""

    def __init__(self) -> None:
        self._given = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def __call__(self) -> bool:
        """True once word has come."""
        return self._given.is_set()

    def _watch(self) -> None:
        here = ray.get_runtime_context().get_node_id()
        while not self._given.wait(NOTICE_S):
            try:
                draining = state.get_draining_nodes()
            except Exception:  # the next look may be answered
                continue
            if here in draining:
                self._given.set()
