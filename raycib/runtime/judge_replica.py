"""What runs in the judge's replica: one engine, which reads the conversations of all who ask.

Imported by the driver too: what is heavy is imported where the engine starts.
"""

import asyncio
import threading
from itertools import islice
from typing import Any

import grpc
import ray
from ray import serve

from raycib.config import JudgeSpec
from raycib.evals.judges import Verdict
from raycib.evals.verdicts import Pair
from raycib.runtime.holds import wait_until_forgotten
from raycib.runtime.judge import guard_with_vllm


@serve.deployment
class JudgeReplica:
    """A guard model that reads conversations, whose inputs are made here as well."""

    def __init__(self, spec: JudgeSpec, patience_s: float | None, **engine: Any) -> None:
        """`engine` is for `Generator`. `patience_s`: take the application down once no driver has
        held it for so long; None leaves that to the driver."""
        _listen_on_own_address()
        self._judge = guard_with_vllm(spec, **engine)
        self._failed: Exception | None = None
        if patience_s is not None:
            app = serve.get_replica_context().app_name
            threading.Thread(target=_leave, args=(app, patience_s), daemon=True).start()

    def check_health(self) -> None:
        """Serve starts another replica where this raises: an engine that failed is not trusted."""
        if self._failed is not None:
            raise self._failed

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0)
    async def judge(self, asked: list[list[Pair]]) -> list[tuple[str, list[Verdict]]]:
        """Who reads, and the verdicts of each request; those that came while others were read share
        the next batch."""
        replica = serve.get_replica_context().replica_tag
        return [(replica, said) for said in await asyncio.to_thread(self._read, asked)]

    def _read(self, asked: list[list[Pair]]) -> list[list[Verdict]]:
        try:
            said = iter(self._judge.judge([pair for pairs in asked for pair in pairs]))
        except Exception as problem:
            self._failed = problem
            raise
        return [list(islice(said, len(pairs))) for pairs in asked]


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


def _leave(app: str, patience_s: float) -> None:
    """Take the application down when no living driver has held it for a while: a killed driver
    cannot, and what it leaves up may keep a GPU."""
    wait_until_forgotten(app, patience_s)
    serve.delete(app)
