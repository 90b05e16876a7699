"""Word that the machine of a process is about to go.

Ray calls that draining: `ray start --block` drains its node when it gets SIGTERM, as Kubernetes
sends it and `ray drain-node` asks for it. No new work comes to such a node, and what runs there may
run until the machine is gone.
"""

import threading

import ray
from ray._private.state import state  # as Ray Train asks; there is no public way

LOOK_S = 2.0


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
        while not self._given.wait(LOOK_S):
            try:
                draining = state.get_draining_nodes()
            except Exception:  # the next look may be answered
                continue
            if here in draining:
                self._given.set()
