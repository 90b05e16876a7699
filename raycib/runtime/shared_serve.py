"""One Serve on a cluster, shared by sweeps and strangers: who holds which judge, and who ends it.

A judge whose driver was killed stays for the next one that wants it. One that nobody holds for
some minutes takes itself down (`raycib.runtime.judge_replica`).
"""

import logging

from raycib.runtime.holds import alone, held_by_others

APP_PREFIX = "raycib-judge-"
QUIET_LOGGING = {"log_level": "WARNING", "enable_access_log": False}


def start_serve() -> None:
    """Start Serve where none runs. Sweeps ask their judge by its handle, so it opens no port."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location="Disabled", logging_config=QUIET_LOGGING)


def state(app: str) -> str | None:
    """What Serve says of an application, such as "RUNNING", which it is here from its first replica
    on: others may wait for room. None where it has none."""
    from ray import serve

    found = serve.status().applications.get(app)
    if found is None:
        return None
    reads = any("RUNNING" in one.replica_states for one in found.deployments.values())
    return "RUNNING" if reads and found.status == "DEPLOYING" else found.status.value


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
