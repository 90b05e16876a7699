"""The judge as a `ray.serve.llm` application, shared by all sweeps of a cluster that want the same.

It is deployed from a task, so that the driver neither waits nor imports vLLM, and listens on the
loopback address only. How to ask it: `raycib.evals.judges.CompletionJudge`.
"""

import hashlib
import json
import logging
import os
import socket
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from raycib.evals.generate import CPU_CACHE_BYTES, ENGINE_READS
from raycib.orchestration import shared_serve
from raycib.orchestration.shared_serve import APP_PREFIX, QUIET_LOGGING

MODEL_ID = "judge"
"""The name to ask for in `/v1/completions`."""

_QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
# Serve gives its proxy 5 s to start and then kills it; on a busy machine it needs more.
_PATIENT = {
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
}
_BATCH_ON_CPU = 128
PATIENCE = "RAYCIB_JUDGE_PATIENCE_S"
"""Variable with the seconds after which a judge that no driver holds takes itself down."""


@dataclass(frozen=True)
class JudgeConfig:
    """A judge's model and what it may use."""

    model: str
    """Folder or hub id of the guard model."""
    cpus: float = 1.0
    gpus: float = 0.0
    """0 serves from CPU in float32; above 1 the model is split over that many."""
    max_model_len: int = 4096
    """Prompt and verdict together, in tokens."""
    max_replicas: int = 1
    gpu_memory_utilization: float = 0.9
    """Share of the GPU to take; with a fraction of a GPU, of that fraction."""
    weights: str = ""
    """Fingerprint of the model; "" goes by its name."""
    leased: bool = False
    """Whether it takes itself down once no driver holds it any more."""

    @property
    def app(self) -> str:
        """The name of its application: the same for the same weights and settings, wherever the
        files lie."""
        parts = [
            self.weights or self.model, self.cpus, self.gpus, self.max_model_len,
            self.max_replicas, self.gpu_memory_utilization,
        ]  # fmt: skip
        return APP_PREFIX + hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def judge_arguments(config: JudgeConfig) -> dict[str, Any]:
    """The argument of `build_openai_app`: plain data, so it can be checked without starting it."""
    local = Path(config.model).exists()
    on_gpu = config.gpus > 0
    whole_gpus = max(1, round(config.gpus))
    engine: dict[str, Any] = {
        "max_model_len": config.max_model_len,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "seed": 0,
        **ENGINE_READS,
    }
    if on_gpu:
        share = min(1.0, config.gpus)
        engine["gpu_memory_utilization"] = config.gpu_memory_utilization * share
        engine["tensor_parallel_size"] = whole_gpus
        bundle = {"CPU": max(config.cpus / whole_gpus, 0.001), "GPU": share}
    else:
        engine |= {
            "dtype": "float32",
            "enforce_eager": True,
            "max_num_seqs": _BATCH_ON_CPU,
            "kv_cache_memory_bytes": CPU_CACHE_BYTES,
        }
        bundle = {"CPU": max(config.cpus, 0.001)}  # a bundle of nothing is refused
    replica = "JudgeReplica" if on_gpu else "CpuJudgeReplica"
    llm: dict[str, Any] = {
        "model_loading_config": {"model_id": MODEL_ID, "model_source": config.model},
        "accelerator_config": {"kind": "gpu" if on_gpu else "cpu"},
        "engine_kwargs": engine,
        "log_engine_metrics": False,
        "placement_group_config": {"bundles": [dict(bundle) for _ in range(whole_gpus)]},
        "deployment_config": {
            "ray_actor_options": {"num_cpus": 0},
            "max_ongoing_requests": 256,
            # Without a target of its own ray.serve.llm never scales: its default is 1e9 requests.
            # One request of CompletionJudge holds 64 conversations.
            "autoscaling_config": {
                "min_replicas": 1,
                "max_replicas": config.max_replicas,
                "target_ongoing_requests": 4,
            },
        },
        "server_cls": f"raycib.orchestration.judge_replica:{replica}",
        "runtime_env": {"env_vars": _environment(config, local)},
    }
    if local:
        llm["callback_config"] = {
            "callback_class": "raycib.orchestration.judge_replica:ModelIsThere"
        }
    return {
        "llm_configs": [llm],
        "ingress_cls_config": {"ingress_cls": "raycib.orchestration.judge_address:JudgeIngress"},
        "ingress_deployment_config": {
            "ray_actor_options": {"num_cpus": 0, "runtime_env": {"env_vars": dict(_QUIET)}},
            "autoscaling_config": {
                "min_replicas": 1,
                "initial_replicas": 1,
                "max_replicas": config.max_replicas,
                "target_ongoing_requests": 256,
            },
        },
    }


def _environment(config: JudgeConfig, local: bool) -> dict[str, str]:
    """Variables of the replica and of the engine it starts; those set here by the user win."""
    chosen = dict(_QUIET)
    if local:
        chosen |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if config.gpus <= 0:
        chosen |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # else vLLM insists on a worker process
            "OMP_NUM_THREADS": str(max(1, int(config.cpus))),
        }
    if config.leased:  # who was killed is usually back before that, and finds its judge
        chosen[PATIENCE] = "300"
    return {name: os.environ.get(name, value) for name, value in chosen.items()}


def judge_app(arguments: dict[str, Any]) -> Any:
    """The Serve application. Imports vLLM: call it in the process that deploys."""
    from ray.serve.llm import build_openai_app

    return build_openai_app(arguments)


@ray.remote(num_cpus=0, max_retries=0, max_calls=1, runtime_env={"env_vars": _QUIET | _PATIENT})
def _deploy(
    arguments: dict[str, Any], app: str, host: str, port: int, shared: bool
) -> tuple[str, bool]:
    """Have Serve run the judge; over once it is ready. Its address, and whether it had to be
    started. One call a process: vLLM is large. Locks are processes, which a Ray of one's own
    saves."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    alone = shared_serve.alone if shared else nullcontext
    with alone(app):
        with alone("serve"):
            shared_serve.start_serve(host, port)
        where = shared_serve.address(app)
        shared_serve.drop_orphans(keep=app)
        # One that a killed driver began to start comes up, or fails, without it.
        while (state := shared_serve.state(app)) in ("DEPLOYING", "DELETING"):
            time.sleep(0.5)
        if state == "RUNNING":
            return where, False
        serve.run(
            judge_app(arguments), name=app, route_prefix=f"/{app}", logging_config=QUIET_LOGGING
        )
    return where, True


class JudgeHandle:
    """A judge that is starting or running."""

    def __init__(self, deployed: Any, config: JudgeConfig, lease: Any = None) -> None:
        self.model_id = MODEL_ID
        self.config = config
        self.started = False
        """Whether it had to be started, once it is ready; otherwise it was up already."""
        self._deployed, self._lease = deployed, lease

    def wait_until_ready(self, timeout_s: float = 600.0) -> str:
        """The address without "/v1", once the judge answers there.

        Raises RuntimeError where it failed to start, TimeoutError where it takes longer.
        """
        import httpx

        deadline = time.monotonic() + timeout_s
        try:
            url, self.started = ray.get(self._deployed, timeout=timeout_s)
        except GetTimeoutError:
            raise TimeoutError(
                f"the judge {self.config.model} was not ready after {timeout_s:.0f} s"
                f" ({self.status()}); give it more time, or free what it waits for:"
                f" {self.config.cpus:g} CPUs and {self.config.gpus:g} GPUs"
            ) from None
        except RayTaskError as problem:
            raise RuntimeError(
                f"the judge {self.config.model} did not start: {problem.cause} ({self.status()})"
            ) from problem
        while True:
            try:
                httpx.get(f"{url}/v1/models", timeout=10, trust_env=False).raise_for_status()
                return url
            except httpx.HTTPError as problem:
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"the judge runs but {url} does not answer here ({problem});"
                        " it listens on the head node, where the driver has to run"
                    ) from problem
                time.sleep(0.2)

    @property
    def is_up(self) -> bool:
        """Whether Serve runs it and finds it healthy."""
        return shared_serve.state(self.config.app) == "RUNNING"

    def stop(self) -> None:
        """Let go of the judge; the last one out takes it down, and Serve where that was raycib's.
        Safe to call twice, and before it is ready."""
        if not ray.is_initialized():
            return
        ray.cancel(self._deployed, force=True)
        if self._lease is not None:
            ray.kill(self._lease)
        shared_serve.take_down(self.config.app)

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
    max_replicas: int = 1,
    host: str = "127.0.0.1",
    port: int | None = None,
    shared: bool = False,
) -> JudgeHandle:
    """Begin to start a judge on the running Ray cluster and return at once.

    One of the same `weights` and settings that runs there is used as it is. `port` None takes a
    free one; a Serve that runs keeps its own. On a `shared` cluster the judge is held by name, so
    that it lives as long as anybody needs it.
    """
    if not ray.is_initialized():
        raise RuntimeError("no Ray to start the judge on; call ray.init first")
    config = JudgeConfig(
        model=str(model),
        weights=weights,
        cpus=cpus,
        gpus=gpus,
        max_model_len=max_model_len,
        max_replicas=max_replicas,
        leased=shared,
    )
    lease = shared_serve.hold(config.app) if shared else None
    port = port or _free_port(host)
    deployed = _deploy.remote(judge_arguments(config), config.app, host, port, shared)
    return JudgeHandle(deployed, config, lease)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
