"""The judge as an application of Ray Serve, shared by all sweeps of a cluster that want the same.

It starts beside the driver, which neither waits nor imports vLLM, and is asked by its handle: it
needs no port. How to ask it: `raycib.evals.judges.CompletionJudge`.
"""

import asyncio
import hashlib
import json
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError

from raycib.config import JudgeSpec
from raycib.config.presets import Execution
from raycib.evals.completions import accepted
from raycib.evals.judge_reply import Malformed
from raycib.evals.judge_server import Server
from raycib.model_files import context_length, verified
from raycib.runtime import shared_serve
from raycib.runtime.shared_serve import APP_PREFIX, QUIET_LOGGING

T = TypeVar("T")

PATIENCE = "RAYCIB_JUDGE_PATIENCE_S"
"""Variable with the seconds after which a judge that no driver holds takes itself down."""
PATIENCE_S = 300.0
"""Who was killed is usually back before that, and finds its judge."""


@dataclass(frozen=True)
class JudgeConfig:
    """A judge's model and what it may use."""

    model: str
    """Folder or hub id of the guard model."""
    cpus: float = 1.0
    gpus: float = 0.0
    """0 serves from CPU in float32; above 1 the model is split over that many of one machine."""
    max_model_len: int = 4096
    """Prompt and verdict together, in tokens."""
    weights: str = ""
    """Fingerprint of the model; "" goes by its name."""

    @property
    def app(self) -> str:
        """The name of its application: the same for the same weights and settings, wherever the
        files lie."""
        parts = [self.weights or self.model, self.cpus, self.gpus, self.max_model_len]
        return APP_PREFIX + hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def replica_options(config: JudgeConfig) -> dict[str, Any]:
    """What the judge's replica takes of the cluster, and the environment of its process, where
    variables that are set here win."""
    chosen = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if Path(config.model).exists():
        chosen |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    gpus = min(1.0, config.gpus) if config.gpus < 1 else round(config.gpus)
    if not gpus:
        chosen["OMP_NUM_THREADS"] = str(max(1, int(config.cpus)))
    environment = {name: os.environ.get(name, value) for name, value in chosen.items()}
    cpus = max(config.cpus, 0.001)  # a bundle of nothing is refused
    return {
        "ray_actor_options": {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "runtime_env": {"env_vars": environment},
        },
        # What waits for room is seen by its bundles.
        "placement_group_bundles": [{"CPU": cpus} | ({"GPU": gpus} if gpus else {})],
        "max_ongoing_requests": 256,
    }


def engine_options(config: JudgeConfig) -> dict[str, Any]:
    """What the judge's `Generator` is told."""
    if not config.gpus:
        return {"max_model_len": config.max_model_len}
    return {
        "max_model_len": config.max_model_len,
        "dtype": "auto",
        "gpus": max(1, round(config.gpus)),
        "gpu_memory_utilization": 0.9 * min(1.0, config.gpus),
    }


class ServedJudge(Server):
    """A judge of our own that runs, asked by its handle."""

    def __init__(self, app: str, handle: Any, **patience: Any) -> None:
        """`patience` is `Server`'s."""
        super().__init__(app, **patience)
        self._handle = handle

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None, read: Callable[[Any], T]
    ) -> T:
        try:
            reply = await asyncio.wait_for(self._handle.complete.remote(body), self._timeout_s)
        except TimeoutError as problem:
            raise Malformed(f"no reply within {self._timeout_s:g} s") from problem
        except Exception as problem:  # Serve's and Ray's have no class in common
            said = str(problem).strip().splitlines() or [""]
            raise Malformed(f"{type(problem).__name__}: {said[-1][:300]}") from problem
        return read(accepted(reply))


class JudgeHandle:
    """A judge that is starting or running."""

    def __init__(self, config: JudgeConfig, shared: bool) -> None:
        self.config = config
        self.started = False
        """Whether it had to be started, once it is ready; otherwise it was up already."""
        self._lease = shared_serve.hold(config.app) if shared else None
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

        app = self.config.app
        shared = self._lease is not None
        alone = partial(shared_serve.alone, stopping=self._stopping) if shared else nullcontext
        with alone(app):
            with alone("serve"):
                shared_serve.start_serve()
            if shared:
                shared_serve.drop_orphans(keep=app)
            # One that a killed driver began to start comes up, or fails, without it.
            if self._settled() != "RUNNING" and not self._stopping.is_set():
                patience = float(os.environ.get(PATIENCE, PATIENCE_S)) if shared else None
                replica: Any = JudgeReplica
                judge = serve.RunTarget(
                    replica.options(**replica_options(self.config)).bind(
                        self.config.model, patience, **engine_options(self.config)
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
        app = self.config.app
        while (state := shared_serve.state(app)) in ("DEPLOYING", "DELETING"):
            if self._stopping.wait(0.2):
                break
        return state

    def wait_until_ready(self, timeout_s: float = 600.0) -> ServedJudge:
        """The judge, once it can be asked.

        Raises RuntimeError where it failed to start, TimeoutError where it takes longer.
        """
        if not self._done.wait(timeout_s):
            raise TimeoutError(
                f"the judge {self.config.model} was not ready after {timeout_s:.0f} s"
                f" ({self.status()}); give it more time, or free what it waits for:"
                f" {self.config.cpus:g} CPUs and {self.config.gpus:g} GPUs"
            )
        if self._problem is not None:
            raise RuntimeError(
                f"the judge {self.config.model} did not start: {self._problem}"
            ) from self._problem
        return ServedJudge(self.config.app, self._handle)

    @property
    def is_up(self) -> bool:
        """Whether Serve runs it and finds it healthy."""
        return shared_serve.state(self.config.app) == "RUNNING"

    def stop(self, free: bool = False) -> None:
        """Let go of the judge. On a shared cluster the last one out takes it down, and Serve where
        that was raycib's; a Ray of one's own goes down as a whole, unless the judge has to make
        room before that (`free`). Safe to call twice, and before it is ready."""
        self._stopping.set()
        self._thread.join()  # what asked Ray for something afterwards would start another
        if self._lease is not None and ray.is_initialized():
            ray.kill(self._lease)
            shared_serve.take_down(self.config.app)
        elif free and shared_serve.state(self.config.app) is not None:
            from ray import serve

            serve.delete(self.config.app)

    def status(self) -> str:
        """What Serve says about the judge, in one line."""
        from ray import serve

        try:
            app = serve.status().applications.get(self.config.app)
        except RayError as problem:
            return f"Serve's status is unknown: {problem}"
        if app is None:
            return "Serve has not been asked to run it yet"
        said = [app.message, *(d.message for d in app.deployments.values())]
        return " ".join([f"Serve: {app.status}.", *filter(None, said)])[:2000]


def start_judge(
    model: str | Path,
    *,
    weights: str = "",
    cpus: float = 1.0,
    gpus: float = 0.0,
    max_model_len: int = 4096,
    shared: bool = False,
) -> JudgeHandle:
    """Begin to start a judge on the running Ray cluster and return at once.

    One of the same `weights` and settings that runs there is used as it is. On a `shared` cluster
    the judge is held by name, so that it lives as long as anybody needs it.
    """
    if not ray.is_initialized():
        raise RuntimeError("no Ray to start the judge on; call ray.init first")
    config = JudgeConfig(str(model), cpus, gpus, max_model_len, weights)
    return JudgeHandle(config, shared)


def start_guard(spec: JudgeSpec, execution: Execution, shared: bool) -> JudgeHandle:
    """Begin to start the judge of a sweep. Whoever holds it on a `shared` cluster, as a test run
    may, keeps it warm for the sweeps that come."""
    return start_judge(
        verified(spec),
        weights=spec.weights,
        cpus=execution.judge_cpus,
        gpus=execution.judge_gpus,
        max_model_len=context_length(spec.source),
        shared=shared,
    )
