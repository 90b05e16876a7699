"""What runs inside the judge's replica: `ray.serve.llm`'s server, started sooner and silently.

Imported in replicas and by the task that deploys them, never by a driver: it imports vLLM.
"""

from typing import Any

from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.serve.llm.deployment import LLMServer


class ModelIsThere(CallbackBase):
    """Skips the task that fetches the model: for folders, it would only import vLLM once more."""

    async def on_before_node_init(self) -> None:
        """Called before the model is fetched."""
        self.ctx.run_init_node = False


class OneProcessEngine(VLLMEngine):
    """An engine whose worker lives in the engine's own process; for one CPU replica.

    `ray.serve.llm` asks for a worker process of its own on CPU, which imports vLLM yet again.
    """

    def _prepare_engine_config(self, callback_ctx: Any) -> Any:
        prepared = super()._prepare_engine_config(callback_ctx)
        prepared[-1].parallel_config.distributed_executor_backend = "uni"
        return prepared


class JudgeReplica(LLMServer):
    """A server that reports nothing to anyone (the stock one starts an actor for usage reports)."""

    async def _start_engine(self) -> None:
        if self.engine is None:
            raise RuntimeError("ray.serve.llm made no engine to start")
        await self.engine.start()


class CpuJudgeReplica(JudgeReplica):
    """The same with its engine in fewer processes."""

    _default_engine_cls = OneProcessEngine
