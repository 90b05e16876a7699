"""One Serve on a cluster, shared by sweeps and strangers: who holds which judge, and who ends it.

Nothing here has to be cleaned up after a killed driver. What it held are named actors of its own,
which Ray ends with it; the next driver finds its judge and goes on with it. A judge that nobody
holds for some minutes takes itself down (`raycib.runtime.judge_replica`).
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import ray

NAMESPACE = "raycib"
APP_PREFIX = "raycib-judge-"
QUIET_LOGGING = {"log_level": "WARNING", "enable_access_log": False}


@ray.remote(num_cpus=0)
class Named:
    """Something that a process holds by its name; it ends with that process, however that ends."""


def hold(app: str) -> Any:
    """Say that this driver uses an application; the returned actor says it while it lives."""
    held: Any = Named
    return held.options(name=_mine(app), namespace=NAMESPACE, get_if_exists=True).remote()


def _mine(app: str) -> str:
    return f"{app} for {ray.get_runtime_context().get_job_id()}"


def held_by_anyone(app: str) -> bool:
    """Whether a living driver uses an application."""
    return bool(_holders(app))


def held_by_others(app: str) -> bool:
    """Whether another living driver than this one does."""
    return bool(_holders(app) - {_mine(app)})


def _holders(app: str) -> set[str]:
    named: Any = ray.util.list_named_actors(all_namespaces=True)
    names = {one["name"] for one in named if one["namespace"] == NAMESPACE}
    return {name for name in names if name.startswith(f"{app} for ")}


@contextmanager
def alone(what: str, stopping: Event | None = None) -> Iterator[None]:
    """One process of the cluster at a time. Raises RuntimeError where it waits no more because it
    is `stopping`."""
    lock: Any = Named
    while True:
        try:
            mine = lock.options(name=f"changing {what}", namespace=NAMESPACE).remote()
            break
        except ValueError:  # the name is taken
            time.sleep(0.5)
        if stopping is not None and stopping.is_set():
            raise RuntimeError(f"stopped while another sweep was changing {what}")
    try:
        yield
    finally:
        ray.kill(mine)


def start_serve() -> None:
    """Start Serve where none runs. Sweeps ask their judge by its handle, so it opens no port."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location="Disabled", logging_config=QUIET_LOGGING)


def state(app: str) -> str | None:
    """What Serve says of an application, such as "RUNNING"; None where it has none."""
    from ray import serve

    found = serve.status().applications.get(app)
    return found.status.value if found else None


def drop_orphans(keep: str) -> None:
    """Take down judges that nobody holds: killed drivers' with other weights or settings, which
    may have the GPU that `keep` waits for."""
    from ray import serve

    for app in serve.status().applications:
        if app.startswith(APP_PREFIX) and app != keep and not held_by_others(app):
            serve.delete(app)


def take_down(app: str) -> None:
    """End an application unless another driver uses it, and Serve where it then has none and no
    way in, as `start_serve` starts it; what belongs to somebody else stays as it is."""
    from ray import serve

    if held_by_others(app):
        return
    with alone(app), alone("serve"):
        if held_by_others(app):
            return
        if state(app) is not None:
            serve.delete(app)
        left = serve.status()
        if not (left.applications or left.proxies):
            serve.shutdown()
