"""What runs inside the judge's replica: `ray.serve.llm`'s server, started sooner and silently.

Imported in replicas and by the task that deploys them, never by a driver: it imports vLLM.
"""

import asyncio
import os
from typing import Any

from ray import serve
from ray.llm._internal.common.callbacks.base import CallbackBase
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.serve.llm.deployment import LLMServer

from raycib.orchestration.judge_address import listen_on_own_address
from raycib.orchestration.serve import PATIENCE
from raycib.orchestration.shared_serve import held_by_anyone

LOOK_EVERY_S = 10


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
    """A server that reports nothing to anyone (the stock one starts an actor for usage reports),
    listens where it has to, and goes once nobody holds it."""

    async def _start_engine(self) -> None:
        if self.engine is None:
            raise RuntimeError("ray.serve.llm made no engine to start")
        listen_on_own_address()
        await self.engine.start()
        if patience := os.environ.get(PATIENCE):
            self._leaving = asyncio.create_task(_leave_when_forgotten(float(patience)))


async def _leave_when_forgotten(patience_s: float) -> None:
    """Take the application down when no living driver has held it for a while: a killed driver
    cannot, and what it leaves up may keep a GPU."""
    app = serve.get_replica_context().app_name
    forgotten = 0
    while forgotten < patience_s:
        await asyncio.sleep(LOOK_EVERY_S)
        held = await asyncio.to_thread(held_by_anyone, app)
        forgotten = 0 if held else forgotten + LOOK_EVERY_S
    await asyncio.to_thread(serve.delete, app, _blocking=False)


class CpuJudgeReplica(JudgeReplica):
    """The same with its engine in fewer processes."""

    _default_engine_cls = OneProcessEngine
