"""Asking a judge's server: many requests at once, each tried again for a while, none lost.

Only network calls are retried. What cannot be had in the end is an error that says how much is
already safe; it is never a verdict.
"""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, TypeVar

import httpx

from raycib.evals.judge_address import Address, address

T = TypeVar("T")

_RETRIED_STATUS = frozenset({408, 409, 425, 429})
"""Of the 4xx only these may pass by themselves; every 5xx may."""

_LONGEST_PAUSE_S = 30.0


class JudgeUnavailable(RuntimeError):
    """The judge gave no usable reply in time. What it had said before is kept."""


class Malformed(ValueError):
    """A reply that is no verdict, such as half a JSON. Retried: servers die in mid-sentence."""


class _Refused(Exception):
    """A reply that will not change by asking again."""


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
        """`patience_s` bounds the whole of one request with its retries, in seconds. A URL without
        more is asked with the key that its host has in the environment, if it has one."""
        self._where = address(where) if isinstance(where, str) else where
        self.url = self._where.url
        self._in_flight = in_flight
        self._tries = tries
        self._patience_s = patience_s
        authorization = self._where.authorization
        self._client = httpx.Client(
            timeout=request_timeout_s,
            headers={"Authorization": authorization} if authorization else {},
            params=self._where.query,
            limits=httpx.Limits(max_connections=in_flight),
            trust_env=False,
        )
        self._stopping = threading.Event()

    def only_model(self) -> str:
        """The name of the one model served. Raises ValueError where there are several or none."""
        names = [card["id"] for card in self._persist(lambda: self._send("GET", "/models"))["data"]]
        if len(names) != 1:
            raise ValueError(f"{self.url} serves {names or 'no model'}; name the judge to ask")
        return names[0]

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON of one reply, without retries."""
        return self._send("POST", path, body)

    def ask_all(
        self,
        count: int,
        rows_a_request: int,
        ask: Callable[[list[int]], list[T]],
        on_chunk: Callable[[list[int], list[T]], None] | None,
        chunk_rows: int,
    ) -> list[T]:
        """`ask` over the positions 0 to count - 1, `rows_a_request` at a time; results in order.

        `on_chunk` gets results in this thread in lots of about `chunk_rows`, and before
        JudgeUnavailable is raised all that are known.
        """
        known: dict[int, T] = {}
        fresh: list[int] = []

        def hand_over() -> None:
            if on_chunk is not None and fresh:
                on_chunk(list(fresh), [known[row] for row in fresh])
            fresh.clear()

        lots = iter(
            [list(range(count))[i : i + rows_a_request] for i in range(0, count, rows_a_request)]
        )
        running: dict[Future[list[T]], list[int]] = {}
        self._stopping.clear()
        with ThreadPoolExecutor(self._in_flight, thread_name_prefix="judge") as pool:
            try:
                while True:
                    for lot in islice(lots, 2 * self._in_flight - len(running)):
                        running[pool.submit(self._persist, lambda lot=lot: ask(lot))] = lot
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        lot = running.pop(future)
                        known.update(zip(lot, future.result(), strict=True))
                        fresh.extend(lot)
                        if len(fresh) >= chunk_rows:
                            hand_over()
            except JudgeUnavailable as problem:
                self._stop(running, known, fresh)
                hand_over()
                raise JudgeUnavailable(
                    f"{problem} {len(known)} of {count} verdicts are safe; once the judge answers,"
                    " run the same command again and only the rest is asked."
                ) from problem
            except BaseException:
                self._stop(running, known, fresh)
                hand_over()
                raise
        hand_over()
        return [known[row] for row in range(count)]

    def _stop(
        self, running: dict[Future[list[T]], list[int]], known: dict[int, T], fresh: list[int]
    ) -> None:
        """Ask nothing more; keep what arrives from requests under way."""
        self._stopping.set()
        for future in running:
            future.cancel()
        for future, lot in running.items():
            if not future.cancelled() and future.exception() is None:
                known.update(zip(lot, future.result(), strict=True))
                fresh.extend(lot)

    def _persist(self, attempt: Callable[[], T]) -> T:
        """`attempt` until it succeeds, with growing pauses. Raises JudgeUnavailable."""
        deadline = time.monotonic() + self._patience_s
        last: Exception | None = None
        for tried in range(1, self._tries + 1):
            try:
                return attempt()
            except _Refused as problem:
                raise JudgeUnavailable(f"The judge at {self.url} refuses: {problem}.") from problem
            except (httpx.HTTPError, Malformed, KeyError, TypeError, IndexError) as problem:
                last = problem
            pause = min(_LONGEST_PAUSE_S, 0.5 * 2**tried) * random.uniform(0.5, 1.0)
            if tried == self._tries or time.monotonic() + pause > deadline:
                break
            if self._stopping.wait(pause):
                break
        raise JudgeUnavailable(
            f"The judge at {self.url} gave no usable reply"
            f" (last: {type(last).__name__}: {last}); look at the judge's log."
        ) from last

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        reply = self._client.request(method, self.url + path, json=body)
        if reply.status_code >= 500 or reply.status_code in _RETRIED_STATUS:
            raise Malformed(f"HTTP {reply.status_code}: {reply.text[:200]}")
        if reply.status_code >= 400:
            raise _Refused(f"HTTP {reply.status_code}: {reply.text[:500]}")
        try:
            return reply.json()
        except ValueError as problem:
            raise Malformed(f"no JSON: {reply.text[:200]}") from problem
