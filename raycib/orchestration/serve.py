"""The judge as one `ray.serve.llm` application, shared by everything that runs on the cluster.

It is deployed from a task, so that the driver neither waits nor imports vLLM, and listens on the
loopback address only. How to ask it: `raycib.evals.judges.CompletionJudge`.
"""

import logging
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from raycib.evals.generate import CPU_CACHE_BYTES, ENGINE_READS

APP_NAME = "raycib-judge"
MODEL_ID = "judge"
"""The name to ask for in `/v1/completions`."""

_LOGGING = {"log_level": "WARNING", "enable_access_log": False}
_QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
# Serve gives its proxy 5 s to start and then kills it; on a busy machine it needs more.
_PATIENT = {
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
}
_BATCH_ON_CPU = 128


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
    return {name: os.environ.get(name, value) for name, value in chosen.items()}


def judge_app(arguments: dict[str, Any]) -> Any:
    """The Serve application. Imports vLLM: call it in the process that deploys."""
    from ray.serve.llm import build_openai_app

    return build_openai_app(arguments)


@ray.remote(num_cpus=0, max_retries=0, max_calls=1, runtime_env={"env_vars": _QUIET | _PATIENT})
def _deploy(arguments: dict[str, Any], host: str, port: int) -> None:
    """Start Serve and run the judge; over once it is ready. One call a process: vLLM is large."""
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    where = {"host": host, "port": port}
    try:
        serve.start(proxy_location="HeadOnly", http_options=where, logging_config=_LOGGING)
    except (TimeoutError, RayError):  # its proxy takes longer than Serve waits, and comes later
        serve.start(proxy_location="HeadOnly", http_options=where, logging_config=_LOGGING)
    serve.run(judge_app(arguments), name=APP_NAME, route_prefix="/", logging_config=_LOGGING)


class JudgeHandle:
    """A judge that is starting or running."""

    def __init__(self, url: str, deployed: Any, config: JudgeConfig) -> None:
        self.url = url
        """Where it listens, without "/v1"."""
        self.model_id = MODEL_ID
        self.config = config
        self._deployed = deployed

    def wait_until_ready(self, timeout_s: float = 600.0) -> str:
        """The address, once the judge answers there.

        Raises RuntimeError where it failed to start, TimeoutError where it takes longer.
        """
        import httpx

        deadline = time.monotonic() + timeout_s
        try:
            ray.get(self._deployed, timeout=timeout_s)
        except GetTimeoutError:
            raise TimeoutError(
                f"the judge {self.config.model} was not ready after {timeout_s:.0f} s"
                f" ({_status()}); give it more time, or free what it waits for:"
                f" {self.config.cpus:g} CPUs and {self.config.gpus:g} GPUs"
            ) from None
        except RayTaskError as problem:
            raise RuntimeError(
                f"the judge {self.config.model} did not start: {problem.cause} ({_status()})"
            ) from problem
        while True:
            try:
                httpx.get(f"{self.url}/v1/models", timeout=10, trust_env=False).raise_for_status()
                return self.url
            except httpx.HTTPError as problem:
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"the judge runs but {self.url} does not answer here ({problem});"
                        " it listens on the head node, where the driver has to run"
                    ) from problem
                time.sleep(0.2)

    def stop(self) -> None:
        """Take the judge and Serve down. Safe to call twice, and before it is ready."""
        from ray import serve

        if not ray.is_initialized():
            return
        ray.cancel(self._deployed, force=True)
        serve.shutdown()


def start_judge(
    model: str | Path,
    *,
    cpus: float = 1.0,
    gpus: float = 0.0,
    max_model_len: int = 4096,
    max_replicas: int = 1,
    host: str = "127.0.0.1",
    port: int | None = None,
) -> JudgeHandle:
    """Begin to start a judge on the running Ray cluster and return at once.

    `port` None takes a free one. Serve keeps the address it was first started with, so a cluster
    that already runs Serve is refused with RuntimeError.
    """
    if not ray.is_initialized():
        raise RuntimeError("no Ray to start the judge on; call ray.init first")
    if _serve_is_running():
        raise RuntimeError(
            "this Ray cluster already runs Serve, whose address cannot change; stop it"
            " (`serve shutdown`), or judge with the endpoint that it offers (--judge-url)"
        )
    config = JudgeConfig(
        model=str(model),
        cpus=cpus,
        gpus=gpus,
        max_model_len=max_model_len,
        max_replicas=max_replicas,
    )
    port = port or _free_port(host)
    deployed = _deploy.remote(judge_arguments(config), host, port)
    return JudgeHandle(f"http://{host}:{port}", deployed, config)


def _serve_is_running() -> bool:
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _status() -> str:
    """What Serve says about the judge, in one line."""
    from ray import serve

    try:
        app = serve.status().applications.get(APP_NAME)
    except RayError as problem:
        return f"Serve's status is unknown: {problem}"
    if app is None:
        return "Serve has not been asked to run it yet"
    said = [app.message, *(d.message for d in app.deployments.values())]
    return " ".join([f"Serve: {app.status}.", *filter(None, said)])[:2000]
