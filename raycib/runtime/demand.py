"""What sweeps want of a cluster's autoscaler, all at once: nodes for every group, not one after the
other as fast as an autoscaler allows itself.

Ray keeps one request for a whole cluster, and each call replaces the last. So an actor asks for the
sum of what living drivers want, and takes it back once none wants anything, however they ended.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources

from raycib.runtime.holds import NAMESPACE, alone, beside, hold, said_of

Bundles = Sequence[dict[str, float]]
DEMAND = "demand"
LOOK_S = 1.0


@ray.remote(num_cpus=0)
class Asking:
    """Asks for as long as anybody wants something."""

    def __init__(self) -> None:
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        asked: list[Any] = []
        while True:
            wanted = [bundle for bundles in said_of(DEMAND) for bundle in bundles]
            if wanted != asked:
                request_resources(bundles=wanted)
                asked = wanted
            if not wanted:
                with alone(DEMAND):  # a driver that begins to ask finds this one, or starts another
                    if not said_of(DEMAND):
                        ray.kill(ray.get_runtime_context().current_actor)
                        return
            time.sleep(LOOK_S)


class Demand:
    """One driver's, until it is given back or the driver ends; without any, or on a Ray of one's
    own, of nothing."""

    def __init__(self, bundles: Bundles) -> None:
        self._held: Any = None
        if not bundles:
            return
        with alone(DEMAND):
            self._held = hold(DEMAND, list(bundles))
            place = {"name": "asking", "namespace": NAMESPACE, "scheduling_strategy": beside()}
            asking: Any = Asking
            asking.options(**place, get_if_exists=True, lifetime="detached").remote()

    def give_back(self) -> None:
        """It is wanted no more; what works on the nodes keeps them. Safe to call twice."""
        if self._held is not None:
            ray.kill(self._held)
            self._held = None
