"""One Serve on a cluster, shared by sweeps and strangers: who holds which judge, and who ends it.

Nothing here has to be cleaned up after a killed driver. What it held are named actors of its own,
which Ray ends with it; the next driver finds its judge and goes on with it. A judge that nobody
holds for some minutes takes itself down (`raycib.orchestration.judge_replica`).
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

NAMESPACE = "raycib"
APP_PREFIX = "raycib-judge-"
QUIET_LOGGING = {"log_level": "WARNING", "enable_access_log": False}
_OURS = "raycib-started-serve"


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
def alone(what: str) -> Iterator[None]:
    """One process of the cluster at a time."""
    lock: Any = Named
    while True:
        try:
            mine = lock.options(name=f"changing {what}", namespace=NAMESPACE).remote()
            break
        except ValueError:  # the name is taken
            time.sleep(0.5)
    try:
        yield
    finally:
        ray.kill(mine)


def controller() -> Any:
    """Serve's own actor, or None where Serve does not run."""
    try:
        return ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return None


def start_serve(host: str, port: int) -> None:
    """Start Serve where none runs; one that runs keeps its address, whoever started it."""
    from ray import serve

    if controller() is not None:
        return
    where = {"host": host, "port": port}
    try:
        serve.start(proxy_location="HeadOnly", http_options=where, logging_config=QUIET_LOGGING)
    except (TimeoutError, RayError):  # its proxy takes longer than Serve waits, and comes later
        serve.start(proxy_location="HeadOnly", http_options=where, logging_config=QUIET_LOGGING)
    _internal_kv_put(_OURS, controller()._actor_id.hex(), overwrite=True)


def address(app: str) -> str:
    """Where an application answers, on the machine of the driver."""
    http: Any = ray.get(controller().get_http_config.remote())
    if not http.host or getattr(http.location, "value", http.location) in ("NoServer", "Disabled"):
        raise RuntimeError(
            "the Serve that this cluster runs has no HTTP proxy; stop it (`serve shutdown`), or "
            "judge with an endpoint of yours (--judge-url)"
        )
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(http.host, http.host)
    return f"http://{host}:{http.port}{http.root_path}/{app}"


def state(app: str) -> str | None:
    """What Serve says of an application, such as "RUNNING"; None where it has none."""
    from ray import serve

    found = serve.status().applications.get(app) if controller() is not None else None
    return found.status.value if found else None


def drop_orphans(keep: str) -> None:
    """Take down judges that nobody holds: killed drivers' with other weights or settings, which
    may have the GPU that `keep` waits for."""
    from ray import serve

    for app in serve.status().applications:
        if app.startswith(APP_PREFIX) and app != keep and not held_by_others(app):
            serve.delete(app)


def take_down(app: str) -> None:
    """End an application unless another driver uses it, and Serve where it was raycib's and has no
    other; what belongs to somebody else stays as it is."""
    from ray import serve

    if held_by_others(app) or controller() is None:
        return
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with alone(app), alone("serve"):
        if held_by_others(app) or controller() is None:
            return
        if state(app) is not None:
            serve.delete(app)
        ours = _internal_kv_get(_OURS) == controller()._actor_id.hex().encode()
        if ours and not serve.status().applications:
            serve.shutdown()
