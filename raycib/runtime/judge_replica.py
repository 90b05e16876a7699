"""What runs in the judge's replica: one engine, which completes the prompts of all who ask.

Imported by the driver too: what is heavy is imported where the engine starts.
"""

import asyncio
from typing import Any

import grpc
import ray
from ray import serve

from raycib.evals.completions import complete
from raycib.evals.generate import Generator
from raycib.runtime.shared_serve import held_by_anyone

LOOK_EVERY_S = 10


@serve.deployment
class JudgeReplica:
    """A guard model behind OpenAI's completions, for lists of token ids alone."""

    def __init__(self, model: str, patience_s: float | None, **engine: Any) -> None:
        """`engine` is for `Generator`. `patience_s`: take the application down once no driver has
        held it for so long; None leaves that to the driver."""
        _listen_on_own_address()
        self._engine = Generator(model, max_lora_rank=0, **engine)
        self._failed: Exception | None = None
        if patience_s is not None:
            self._leaving = asyncio.get_running_loop().create_task(_leave(patience_s))

    def check_health(self) -> None:
        """Serve starts another replica where this raises: an engine that failed is not trusted."""
        if self._failed is not None:
            raise self._failed

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0)
    async def complete(self, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A reply to each request; those that came while others were answered share the next
        batch."""
        return await asyncio.to_thread(self._complete, asked)

    def _complete(self, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            return complete(self._engine, asked)
        except Exception as problem:
            self._failed = problem
            raise


def _listen_on_own_address() -> None:
    """Have this process listen on its node's address alone: the loopback one in a Ray that is
    started here. Serve 2.60 opens a port for calls between replicas on every address (`"[::]:0"`),
    after it has made the replica's own class, and no setting moves it."""
    host = ray.util.get_node_ip_address()
    place = f"[{host}]" if ":" in host else host
    server: Any = type(grpc.aio.server())
    for name in ("add_insecure_port", "add_secure_port"):
        add = getattr(server, name)

        def add_here(self: Any, address: str, *rest: Any, add: Any = add) -> int:
            return add(self, address.replace("[::]", place), *rest)

        setattr(server, name, add_here)


async def _leave(patience_s: float) -> None:
    """Take the application down when no living driver has held it for a while: a killed driver
    cannot, and what it leaves up may keep a GPU."""
    app = serve.get_replica_context().app_name
    forgotten = 0
    while forgotten < patience_s:
        await asyncio.sleep(LOOK_EVERY_S)
        held = await asyncio.to_thread(held_by_anyone, app)
        forgotten = 0 if held else forgotten + LOOK_EVERY_S
    await asyncio.to_thread(serve.delete, app)
