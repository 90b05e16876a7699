"""What a driver holds on a cluster by its name: others see it while it lives.

Nothing here has to be cleaned up after a killed driver: what it held are named actors of its own,
which Ray ends with it.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

NAMESPACE = "raycib"
PATIENCE = "RAYCIB_PATIENCE_S"
"""Variable with the seconds after which a judge or an engine that no driver holds ends itself."""
PATIENCE_S = 300.0
"""Who was killed is usually back before that, and finds both."""
LOOK_EVERY_S = 10.0


@ray.remote(num_cpus=0)
class Named:
    """Something that a process holds by its name; it ends with that process, however that ends."""

    def __init__(self, said: Any = None) -> None:
        self._said = said

    def said(self) -> Any:
        """What the holder wanted others to know."""
        return self._said


def beside() -> NodeAffinitySchedulingStrategy:
    """On the node of this process, for an actor that no other node's end may take away."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def hold(what: str, said: Any = None) -> Any:
    """Say that this driver uses something; the returned actor says it while it lives."""
    held: Any = Named
    options = {"name": _mine(what), "namespace": NAMESPACE, "scheduling_strategy": beside()}
    return held.options(**options, get_if_exists=True).remote(said)


def _mine(what: str) -> str:
    return f"{what} for {ray.get_runtime_context().get_job_id()}"


def held_by_anyone(what: str) -> bool:
    """Whether a living driver uses it."""
    return bool(_holders(what))


def held_by_others(what: str) -> bool:
    """Whether another living driver than this one does."""
    return bool(_holders(what) - {_mine(what)})


def _holders(what: str) -> set[str]:
    return {name for name in names() if name.startswith(f"{what} for ")}


def patience_s() -> float:
    """The seconds that a person chose, or ours."""
    return float(os.environ.get(PATIENCE, PATIENCE_S))


def wait_until_forgotten(what: str, patience: float) -> None:
    """Return when no living driver has held it for `patience` seconds."""
    forgotten = 0.0
    while forgotten < patience:
        time.sleep(LOOK_EVERY_S)
        forgotten = 0.0 if held_by_anyone(what) else forgotten + LOOK_EVERY_S


def names() -> set[str]:
    """Of all that lives in our namespace."""
    named: Any = ray.util.list_named_actors(all_namespaces=True)
    return {one["name"] for one in named if one["namespace"] == NAMESPACE}


def said_of(what: str) -> list[Any]:
    """What each living driver that holds it says; one that ends meanwhile says nothing."""
    found = []
    for name in _holders(what):
        try:
            found.append(ray.get(ray.get_actor(name, namespace=NAMESPACE).said.remote()))
        except (ValueError, RayActorError):
            continue
    return found


@contextmanager
def alone(what: str, stopping: Event | None = None) -> Iterator[None]:
    """One process of the cluster at a time. Raises RuntimeError where it waits no more because it
    is `stopping`."""
    lock: Any = Named
    options = {"name": f"changing {what}", "namespace": NAMESPACE, "scheduling_strategy": beside()}
    while True:
        try:
            mine = lock.options(**options).remote()
            break
        except ValueError:  # the name is taken
            time.sleep(0.5)
        if stopping is not None and stopping.is_set():
            raise RuntimeError(f"stopped while another sweep was changing {what}")
    try:
        yield
    finally:
        ray.kill(mine)
