"""Asking a judge's server: many requests at once, each tried again for a while, none lost.

Only what may pass by itself is tried again. What cannot be had in the end is an error that says how
much is already safe; it is never a verdict. No server can hold the asker: a reply has a time and a
size as a whole.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

import httpx

from raycib.evals.judge_address import Address, address
from raycib.evals.judge_reply import Malformed, NotThere, Refused, content, models

T = TypeVar("T")

_LONGEST_PAUSE_S = 30.0
_LARGEST_REPLY = 8 * 2**20
_WELL_FOR_S = 60.0
"""How long a reply shows that the server is well."""


class JudgeUnavailable(RuntimeError):
    """The judge gave no usable reply in time. What it had said before is kept."""


class Endpoint:
    """One server's address with its patience."""

    def __init__(
        self,
        where: str | Address,
        *,
        in_flight: int,
        request_timeout_s: float,
        tries: int,
        patience_s: float,
    ) -> None:
        """`request_timeout_s` bounds one reply as a whole, `patience_s` one request with its
        retries. A URL without more is asked with the key that its host has in the environment, if
        it has one."""
        self._where = address(where) if isinstance(where, str) else where
        self.url = self._where.url
        self._in_flight = in_flight
        self._timeout_s = request_timeout_s
        self._tries = tries
        self._patience_s = patience_s
        self._client: httpx.AsyncClient
        self._stopping = asyncio.Event()
        self._well_at = -_WELL_FOR_S
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs URLs, queries and all

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` comes to, with a connection to the server while it lasts."""

        async def whole() -> T:
            authorization = self._where.authorization
            async with httpx.AsyncClient(
                timeout=httpx.Timeout(self._timeout_s, connect=min(10.0, self._timeout_s)),
                headers={"Authorization": authorization} if authorization else {},
                params=self._where.query,
                limits=httpx.Limits(max_connections=self._in_flight),
                trust_env=False,
            ) as self._client:
                self._stopping = asyncio.Event()
                return await work()

        return asyncio.run(whole())

    def only_model(self) -> str:
        """The name of the one model served. Raises ValueError where there are several or none."""
        names = self.run(lambda: self._persist(lambda: self._send("GET", "/models", None, models)))
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
        found = await self._persist(lambda: self._send("POST", path, body, read))
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

    def ask_all(
        self,
        count: int,
        rows_a_request: int,
        ask: Callable[[list[int]], Awaitable[list[T]]],
        on_chunk: Callable[[list[int], list[T]], None] | None,
        chunk_rows: int,
    ) -> list[T]:
        """`ask` over the positions 0 to count - 1, `rows_a_request` at a time; results in order.

        `on_chunk` gets results in lots of about `chunk_rows`, and before JudgeUnavailable is raised
        all that are known.
        """
        known: dict[int, T] = {}
        fresh: list[int] = []

        def hand_over() -> None:
            if on_chunk is not None and fresh:
                on_chunk(list(fresh), [known[row] for row in fresh])
            fresh.clear()

        lots = (
            list(range(start, min(start + rows_a_request, count)))
            for start in range(0, count, rows_a_request)
        )
        try:
            self.run(lambda: self._ask_lots(lots, ask, known, fresh, hand_over, chunk_rows))
        except JudgeUnavailable as problem:
            hand_over()
            raise JudgeUnavailable(
                f"{problem} {len(known)} of {count} verdicts are safe; once the judge answers,"
                " run the same command again and only the rest is asked."
            ) from problem
        except BaseException:
            hand_over()
            raise
        hand_over()
        return [known[row] for row in range(count)]

    async def _ask_lots(
        self,
        lots: Iterator[list[int]],
        ask: Callable[[list[int]], Awaitable[list[T]]],
        known: dict[int, T],
        fresh: list[int],
        hand_over: Callable[[], None],
        chunk_rows: int,
    ) -> None:
        """`known` and `fresh` grow as replies come, `in_flight` lots at a time."""
        running: dict[asyncio.Future[list[T]], list[int]] = {}

        def take(done: asyncio.Future[list[T]]) -> None:
            lot = running.pop(done)
            known.update(zip(lot, done.result(), strict=True))
            fresh.extend(lot)

        try:
            while True:
                for lot in islice(lots, self._in_flight - len(running)):
                    running[asyncio.ensure_future(ask(lot))] = lot
                if not running:
                    return
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    take(one)
                if len(fresh) >= chunk_rows:
                    hand_over()
        except BaseException as problem:
            self._stopping.set()  # ask nothing more; keep what arrives from requests under way
            if not isinstance(problem, JudgeUnavailable):
                for one in running:
                    one.cancel()
            if running:
                await asyncio.wait(running)
            for one in list(running):
                if not one.cancelled() and one.exception() is None:
                    take(one)
            raise

    async def _persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """`attempt` until it succeeds, with growing pauses. Raises JudgeUnavailable."""
        deadline = time.monotonic() + self._patience_s
        last: Malformed | None = None
        for tried in range(1, self._tries + 1):
            try:
                return await attempt()
            except Malformed as problem:
                last = problem
            pause = min(_LONGEST_PAUSE_S, 0.5 * 2**tried) * random.uniform(0.5, 1.0)
            pause = max(pause, last.pause_s)
            if tried == self._tries or time.monotonic() + pause > deadline:
                break
            try:
                await asyncio.wait_for(self._stopping.wait(), pause)
                break
            except TimeoutError:
                continue
        raise JudgeUnavailable(
            f"The judge at {self.url} gave no usable reply (last: {last}); look at the judge's log."
        ) from last

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None, read: Callable[[Any], T]
    ) -> T:
        """One request and what its reply says; all that the server may do wrong is `Malformed`."""
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
