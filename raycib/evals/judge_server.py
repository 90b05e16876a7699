"""Asking a judge elsewhere: many requests at once, each tried again for a while, none lost.

Only what may pass by itself is tried again. What cannot be had in the end is an error that says how
much is already safe; it is never a verdict. How a request gets there: `raycib.evals.judge_endpoint`
by HTTP, `raycib.runtime.serve` to the judge of a sweep's own.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from itertools import islice
from typing import Any, TypeVar

from raycib.evals.judge_reply import Malformed

T = TypeVar("T")

_LONGEST_PAUSE_S = 30.0


class JudgeUnavailable(RuntimeError):
    """The judge gave no usable reply in time. What it had said before is kept."""


class Server:
    """One server with the patience to ask it."""

    def __init__(
        self,
        url: str,
        *,
        in_flight: int = 4,
        request_timeout_s: float = 120.0,
        tries: int = 8,
        patience_s: float = 300.0,
    ) -> None:
        """`url` names it to people. At most `in_flight` requests are asked at once.
        `request_timeout_s` bounds one reply as a whole; a failed request is asked again, up to
        `tries` times and for `patience_s` seconds in all."""
        self.url = url
        self._in_flight = in_flight
        self._timeout_s = request_timeout_s
        self._tries = tries
        self._patience_s = patience_s
        self._stopping = asyncio.Event()

    def _connected(self) -> AbstractAsyncContextManager[Any]:
        """What holds for as long as requests are sent."""
        return nullcontext()

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` comes to, with a connection to the server while it lasts."""

        async def whole() -> T:
            async with self._connected():
                self._stopping = asyncio.Event()
                return await work()

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(whole())
        with ThreadPoolExecutor(1) as pool:  # this thread has a loop of its own, as a notebook's
            return pool.submit(asyncio.run, whole()).result()

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

    async def persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """`attempt`, again while it raises `Malformed`, with growing pauses. Raises
        JudgeUnavailable."""
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
