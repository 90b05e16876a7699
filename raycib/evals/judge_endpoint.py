"""A judge's server that is asked by HTTP, wherever it is.

No server can hold the asker: a reply has a time and a size as a whole.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx

from raycib.evals.judge_address import Address, address
from raycib.evals.judge_reply import Malformed, NotThere, Refused, content, models
from raycib.evals.judge_server import JudgeUnavailable, Server

T = TypeVar("T")

_LARGEST_REPLY = 8 * 2**20
_WELL_FOR_S = 60.0
"""How long a reply shows that the server is well."""


class Endpoint(Server):
    """One server's address with its patience."""

    def __init__(self, where: str | Address, **patience: Any) -> None:
        """`patience` is `Server`'s. A URL without more is asked with the key that its host has in
        the environment, if it has one."""
        self._where = address(where) if isinstance(where, str) else where
        super().__init__(self._where.url, **patience)
        self._well_at = -_WELL_FOR_S
        self._client: httpx.AsyncClient
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs URLs, queries and all

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        authorization = self._where.authorization
        async with httpx.AsyncClient(
            timeout=httpx.Timeout(self._timeout_s, connect=min(10.0, self._timeout_s)),
            headers={"Authorization": authorization} if authorization else {},
            params=self._where.query,
            limits=httpx.Limits(max_connections=self._in_flight),
            trust_env=False,
        ) as self._client:
            yield

    def only_model(self) -> str:
        """The name of the one model served. Raises ValueError where there are several or none."""
        names = self.run(lambda: self.persist(lambda: self._send("GET", "/models", None, models)))
        if len(names) != 1:
            raise ValueError(
                f"{self.url} serves {', '.join(names) or 'no model'}; name the judge with --judge"
            )
        return names[0]

    def reach(self) -> None:
        """Raise `NotThere` where nobody answers, with whatever it may be."""

        async def look() -> None:
            try:
                await self._send("GET", "/models", None, lambda _: None)
            except NotThere:
                raise
            except (Malformed, Refused):
                return

        self.run(look)

    async def post(self, path: str, body: dict[str, Any], read: Callable[[Any], T]) -> T:
        """`read` of the JSON of a reply, which is asked for again while it is `Malformed`. Raises
        `Refused` and `JudgeUnavailable`."""
        found = await self.persist(lambda: self._send("POST", path, body, read))
        self._well_at = time.monotonic()
        return found

    async def excuse(self, problem: Refused, harmless: Callable[[], Awaitable[Any]]) -> None:
        """Return where a refusal is about the one conversation: the server has just read another,
        or reads a harmless one. Raises `JudgeUnavailable` where it refuses everything."""
        if not problem.lasting:
            if time.monotonic() - self._well_at < _WELL_FOR_S:
                return
            try:
                await harmless()
                return
            except Refused as again:
                problem = again
        raise JudgeUnavailable(f"The judge at {self.url} refuses: {problem}.") from None

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None, read: Callable[[Any], T]
    ) -> T:
        whole = bytearray()
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream(method, self.url + path, json=body) as reply,
            ):
                async for part in reply.aiter_bytes():
                    whole += part
                    if len(whole) > _LARGEST_REPLY:
                        raise Malformed(f"a reply of more than {_LARGEST_REPLY >> 20} MB")
        except (TimeoutError, httpx.TimeoutException) as problem:
            raise NotThere(f"no whole reply within {self._timeout_s:g} s") from problem
        except httpx.TransportError as problem:
            said = self._where.redacted(str(problem)) or "the connection broke"
            kind = NotThere if isinstance(problem, httpx.ConnectError) else Malformed
            raise kind(f"{type(problem).__name__}: {said}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            raise Malformed(f"{type(problem).__name__}: no HTTP that can be read") from None
        text = whole.decode("utf-8", errors="replace")
        return read(content(reply.status_code, reply.headers, text, self._where.redacted))
