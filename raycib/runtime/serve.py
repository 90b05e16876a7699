"""The judge as an application of Ray Serve, shared by all sweeps of a cluster that want the same.

It starts beside the driver, which neither waits nor imports vLLM, and is asked by its handle: it
needs no port. It makes what it reads itself: a driver loads no tokenizer. A judge whose driver was
killed stays for the next one that wants it. One that nobody holds for some minutes takes itself
down (`raycib.runtime.judge_replica`).
"""

import asyncio
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError

from raycib.config import JudgeSpec, digest
from raycib.config.presets import Execution
from raycib.evals.judge_reply import Malformed
from raycib.evals.judge_server import Server
from raycib.evals.judges import OnChunk, Verdict
from raycib.evals.verdicts import Pair
from raycib.runtime import holds
from raycib.runtime.judge import on_disk

APP_PREFIX = "raycib-judge-"
QUIET_LOGGING = {"log_level": "WARNING", "enable_access_log": False}
ROWS_A_REQUEST = 64
IN_FLIGHT = 4
"""Requests to a replica: those that come while it reads share the next batch."""


def app_of(spec: JudgeSpec, execution: Execution) -> str:
    """The name of a judge's application: the same for the same judge and settings, wherever the
    files lie and however many replicas were asked for."""
    settings = engine_options(execution), execution.judge_cpus
    return APP_PREFIX + digest([spec.key, settings])[:12]


def replica_options(execution: Execution, replicas: int) -> dict[str, Any]:
    """What the judge's replica takes of the cluster, and the environment of its process, where
    variables that are set here win."""
    chosen = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    chosen |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    gpus = execution.judge_gpus
    if not gpus:
        chosen["OMP_NUM_THREADS"] = str(max(1, int(execution.judge_cpus)))
    environment = {name: os.environ.get(name, value) for name, value in chosen.items()}
    cpus = max(execution.judge_cpus, 0.001)  # a bundle of nothing is refused
    return {
        "ray_actor_options": {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "runtime_env": {"env_vars": environment},
        },
        # What waits for room is seen by its bundles.
        "placement_group_bundles": [{"CPU": cpus} | ({"GPU": gpus} if gpus else {})],
        "max_ongoing_requests": 256,
        "num_replicas": replicas,
    }


def engine_options(execution: Execution) -> dict[str, Any]:
    """What the judge's `Generator` is told. Without a GPU nothing: it reads in float32; above 1 the
    model is split over that many of one machine."""
    gpus, invariant = execution.judge_gpus, execution.batch_invariant
    return {"dtype": "auto", "gpus": gpus, "batch_invariant": invariant} if gpus else {}


class ServedJudge(Server):
    """A judge of our own in another process."""

    def __init__(self, name: str, ask: Callable[[list[Pair]], Any], **patience: Any) -> None:
        """`ask` sends pairs there and returns what to wait for. `patience` is `Server`'s."""
        super().__init__(name, **patience)
        self._ask = ask

    def judge(
        self, pairs: Sequence[Pair], on_chunk: OnChunk | None = None, chunk_rows: int = 128
    ) -> list[Verdict]:
        """One verdict for each pair. `on_chunk` has had every known one when this raises."""

        async def ask(rows: list[int]) -> list[Verdict]:
            return await self.persist(lambda: self._send([pairs[row] for row in rows]))

        return self.ask_all(len(pairs), ROWS_A_REQUEST, ask, on_chunk, chunk_rows)

    async def _send(self, pairs: list[Pair]) -> list[Verdict]:
        try:
            return await asyncio.wait_for(self._ask(pairs), self._timeout_s)
        except TimeoutError as problem:
            raise Malformed(f"no reply within {self._timeout_s:g} s") from problem
        except Exception as problem:  # Serve's and Ray's have no class in common
            said = str(problem).strip().splitlines() or [""]
            raise Malformed(f"{type(problem).__name__}: {said[-1][:300]}") from problem


class JudgeHandle:
    """A guard that begins to start on the running Ray cluster, or is there already: the same judge
    with the same settings is used as it is."""

    def __init__(
        self, spec: JudgeSpec, execution: Execution, shared: bool, replicas: int = 1
    ) -> None:
        """Returns at once. On a `shared` cluster the judge is held by name, so that it lives as
        long as anybody needs it: whoever holds it, as a test run may, keeps it warm for the sweeps
        that come."""
        self._spec, self._execution, self.replicas = on_disk(spec), execution, replicas
        self.app = app_of(spec, execution)
        self.started = False
        """Whether it had to be started, once it is ready; otherwise it was up already."""
        self.read: Counter[str] = Counter()
        """Conversations that each replica has read."""
        self._lease = holds.hold(self.app) if shared else None
        self._handle: Any = None
        self._problem: Exception | None = None
        self._done, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._start, daemon=True)
        self._thread.start()

    def _start(self) -> None:
        try:
            self._deploy()
        except Exception as problem:  # for whoever waits
            self._problem = problem
        finally:
            self._done.set()

    def _deploy(self) -> None:
        """Have Serve run the judge. Locks are processes, which a Ray of one's own saves."""
        from ray import serve

        from raycib.runtime.judge_replica import JudgeReplica

        app, shared = self.app, self._lease is not None
        alone = partial(holds.alone, stopping=self._stopping) if shared else nullcontext
        with alone(app):
            with alone("serve"):
                _start_serve()
            if shared:
                _drop_orphans(keep=app)
            # One that a killed driver began to start comes up, or fails, without it.
            if self._settled() != "RUNNING" and not self._stopping.is_set():
                patience = holds.patience_s() if shared else None
                replica: Any = JudgeReplica
                judge = serve.RunTarget(
                    replica.options(**replica_options(self._execution, self.replicas)).bind(
                        self._spec, patience, **engine_options(self._execution)
                    ),
                    name=app,
                    route_prefix=None,
                    logging_config=QUIET_LOGGING,
                )
                serve.run_many([judge], wait_for_applications_running=False)
                self.started = True
                if self._settled() != "RUNNING":
                    raise RuntimeError(self.status())
        self._handle = serve.get_app_handle(app)

    def _settled(self) -> str | None:
        """The application's state once it neither starts nor ends, or nobody waits any more."""
        while (state := _state_of(self.app)) in ("DEPLOYING", "DELETING"):
            if self._stopping.wait(0.2):
                break
        return state

    def wait_until_ready(self, timeout_s: float = 600.0) -> ServedJudge:
        """The judge, once it can be asked.

        Raises RuntimeError where it failed to start, TimeoutError where it takes longer.
        """
        if not self._done.wait(timeout_s):
            cpus, gpus = self._execution.judge_cpus, self._execution.judge_gpus
            raise TimeoutError(
                f"the judge {self._spec.source} was not ready after {timeout_s:.0f} s"
                f" ({self.status()}); give it more time, or free what it waits for:"
                f" {cpus:g} CPUs and {gpus:g} GPUs"
            )
        if self._problem is not None:
            raise RuntimeError(
                f"the judge {self._spec.source} did not start: {self._problem}"
            ) from self._problem
        return ServedJudge(self.app, self._ask, in_flight=IN_FLIGHT * self.replicas)

    async def _ask(self, pairs: list[Pair]) -> list[Verdict]:
        """What a replica says: Serve gives each request to one of the less busy."""
        replica, said = await self._handle.judge.remote(pairs)
        self.read[replica] += len(said)
        return said

    @property
    def is_up(self) -> bool:
        """Whether Serve runs it and finds it healthy."""
        return _state_of(self.app) == "RUNNING"

    def stop(self, free: bool = False) -> None:
        """Let go of the judge. On a shared cluster the last one out takes it down, and Serve where
        that was raycib's; a Ray of one's own goes down as a whole, unless the judge has to make
        room before that (`free`). Safe to call twice, and before it is ready."""
        self._stopping.set()
        self._thread.join()  # what asked Ray for something afterwards would start another
        if self._lease is not None and ray.is_initialized():
            ray.kill(self._lease)
            _take_down(self.app)
        elif free and _state_of(self.app) is not None:
            from ray import serve

            serve.delete(self.app)

    def status(self) -> str:
        """What Serve says about the judge, in one line."""
        from ray import serve

        try:
            app = serve.status().applications.get(self.app)
        except RayError as problem:
            return f"Serve's status is unknown: {problem}"
        if app is None:
            return "Serve has not been asked to run it yet"
        said = [app.message, *(d.message for d in app.deployments.values())]
        return " ".join([f"Serve: {app.status}.", *filter(None, said)])[:2000]


def _start_serve() -> None:
    """Start Serve where none runs. Sweeps ask their judge by its handle, so it opens no port."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location="Disabled", logging_config=QUIET_LOGGING)


def _state_of(app: str) -> str | None:
    """What Serve says of an application, such as "RUNNING", which it is here from its first replica
    on: others may wait for room. None where it has none."""
    from ray import serve

    found = serve.status().applications.get(app)
    if found is None:
        return None
    reads = any("RUNNING" in one.replica_states for one in found.deployments.values())
    return "RUNNING" if reads and found.status == "DEPLOYING" else found.status.value


def _drop_orphans(keep: str) -> None:
    """Take down judges that nobody holds: killed drivers' with other weights or settings, which
    may have the GPU that `keep` waits for."""
    from ray import serve

    for app in serve.status().applications:
        if app.startswith(APP_PREFIX) and app != keep and not holds.held_by_others(app):
            serve.delete(app)


def _take_down(app: str) -> None:
    """End an application unless another driver uses it, and Serve where it then has none and no
    way in, as `_start_serve` starts it; what belongs to somebody else stays as it is."""
    from ray import serve

    if holds.held_by_others(app):
        return
    with holds.alone(app), holds.alone("serve"):
        if holds.held_by_others(app):
            return
        if _state_of(app) is not None:
            serve.delete(app)
        left = serve.status()
        if not (left.applications or left.proxies):
            serve.shutdown()
