"""Replicas of the engine that answers. Whoever is free takes the next lot of models, all of whose
answers it gives in one batch; what a lost one had is asked of the next that is free."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RaySystemError,
    WorkerCrashedError,
)

from raycib.errors import line_of

if TYPE_CHECKING:
    from raycib.runtime.engine_process import EngineProcess

GONE: tuple[type[Exception], ...] = (
    LocalRayletDiedError, NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError,
    RaySystemError, WorkerCrashedError,
)  # fmt: skip
"""What Ray raises where a process of its own is no more."""
TRIES = 4
"""Of a lot whose replica is lost, before the lot itself is thought to be the reason."""


class Ended(Exception):
    """Nobody waits for it any more."""


@dataclass
class _Lot:
    what: str
    given: tuple[Any, ...]
    weight: int
    said: "Future[Any]" = field(default_factory=Future)
    lost: int = 0
    """How often a replica was, while it had this."""


class EnginePool:
    """Replicas, each with a thread that waits for it."""

    def __init__(self, replicas: "Sequence[EngineProcess]", tell: Callable[[str], None]) -> None:
        """`tell` is called by threads with what people should know."""
        self._replicas, self._tell = replicas, tell
        self._waiting: deque[_Lot] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._left = len(replicas)
        self._why: Exception | None = None
        """Why none of them is left."""
        self._ending = False
        self.done = [0] * len(replicas)
        """Models that each has answered for."""

    def start(self) -> None:
        """Have all of them load; safe to call twice."""
        if not self._threads:
            numbers = range(len(self._replicas))
            self._threads = [
                threading.Thread(target=self._work, args=(number,), daemon=True)
                for number in numbers
            ]
            for thread in self._threads:
                thread.start()

    def ask(self, what: str, *given: Any, weight: int = 0) -> "Future[Any]":
        """Have a method done by whoever is free next; `weight` is what it adds to what that one has
        `done`."""
        lot = _Lot(what, given, weight)
        self._put(lot, last=True)
        return lot.said

    def end(self) -> None:
        """Let go of all. What was asked and is not done stays undone."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        for replica in self._replicas:
            replica.end()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        """A replica's time: it loads, and takes lots until there are none any more."""
        replica = self._replicas[number]
        try:
            replica.do("load")
            while (lot := self._next()) is not None:
                try:
                    said = replica.do(lot.what, *lot.given)
                except GONE as lost:
                    self._tell("note: an engine was lost; what it had is asked again")
                    lot.lost += 1
                    if lot.lost < TRIES:
                        self._put(lot, last=False)
                    else:
                        lot.said.set_exception(lost)
                    replica.do("load")
                except Ended:
                    return
                except Exception as error:
                    lot.said.set_exception(error)
                else:
                    self.done[number] += lot.weight
                    lot.said.set_result(said)
        except Ended:
            return
        except Exception as error:
            self._lose(error)

    def _next(self) -> _Lot | None:
        """The first lot that waits, once there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ending)
            return None if self._ending else self._waiting.popleft()

    def _put(self, lot: _Lot, last: bool) -> None:
        with self._changed:
            if self._why is not None:
                lot.said.set_exception(self._why)
                return
            (self._waiting.append if last else self._waiting.appendleft)(lot)
            self._changed.notify()

    def _lose(self, why: Exception) -> None:
        """A replica does not load: the others go on without it."""
        with self._changed:
            self._left -= 1
            if self._left:
                self._tell(f"note: an engine is gone, {self._left} left: {line_of(why)}")
                return
            self._why = why
            while self._waiting:
                self._waiting.popleft().said.set_exception(why)
