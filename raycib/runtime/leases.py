"""Who does what next: the tasks of a sweep that workers take, one at a time, until none is left.

A task is free as soon as what it comes after has ended, so no worker waits for a whole level. A
holder is a process, or several that train one group together, that stays for the whole sweep: its
imports, its base model and its tokens serve all tasks that it takes. If it is lost and comes back,
its task is still its own. A task of which another sweep makes a part goes to the end of the queue.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

Wait = Literal["wait"]
WAIT: Wait = "wait"
"""Nothing is free now, and something will be."""
LOOK_S = 0.2
"""Between two looks of a worker without a task, and of the driver for what has ended."""


class Undone(Exception):
    """Why a task was not done: the traceback of another process, or one line."""

    @property
    def reason(self) -> str:
        """Its last line."""
        return (str(self).strip().splitlines() or ["stopped before it was done"])[-1]


@dataclass(frozen=True)
class Task:
    """A name, and what has to be over before."""

    name: str
    after: frozenset[str] = frozenset()
    """Tasks that must have ended, well or not."""
    needs: frozenset[str] = frozenset()
    """Tasks that must have ended well, or this one fails as they did."""


@dataclass(frozen=True)
class Outcome:
    """What a holder made of a task, or of all of it that is not `elsewhere`."""

    failures: Mapping[str, str] = field(default_factory=dict)
    """Why parts of it failed, by key."""
    found: frozenset[str] = frozenset()
    """Parts that were there already; once it is over, those that another sweep has made."""
    elsewhere: frozenset[str] = frozenset()
    """Parts that another sweep is making, for which the task is looked at again."""
    notes: tuple[str, ...] = ()
    """What people should know of it, a line each."""
    error: Exception | None = None
    """Why nothing of it was done."""


@dataclass(frozen=True, kw_only=True)
class Ended(Outcome):
    """A task that is over."""

    name: str

    @property
    def well(self) -> bool:
        """Whether all of it was done."""
        return self.error is None and not self.failures


class Leases:
    """The queue. Every call returns at once, so that it can live in an actor."""

    def __init__(
        self, tasks: Sequence[Task], tries: int = 1, fail_fast: bool = False, again: bool = False
    ) -> None:
        """`tries` of a task whose holder is lost before it gets further than others did, before the
        task itself is thought to be the reason; with `fail_fast` no task is given out after one
        that did not end well. `again`: whether a queue that was lost had given them out before."""
        self._tasks = {task.name: task for task in tasks}
        self._waiting = dict(self._tasks)
        self._tries, self._fail_fast, self._again = tries, fail_fast, again
        self._held: dict[str, list[str]] = {}
        """All that each holder was ever given, in order."""
        self._working: dict[str, str] = {}
        """What each has now."""
        self._partly: dict[str, Outcome] = {}
        """Of tasks that were put back: what is known of them."""
        self._awaited: dict[str, None] = {}
        """Those of them that nothing was heard of since."""
        self._lost: dict[str, int] = {}
        """How often the holder of a task was lost since the task last got further."""
        self._told: dict[str, dict[str, Any]] = {}
        """How far each is, as its holder tells."""
        self._points: dict[str, dict[str, list[Any]]] = {}
        """Of curves, by task and key, that nobody was told of."""
        self._furthest: dict[str, int] = {}
        """Steps of it that were done, at most, whenever its holder was lost."""
        self._said: dict[str, str] = {}
        """What it said last."""
        self._ended: dict[str, Mapping[str, int]] = {}
        """What each holder's machines had `ended` when it began."""
        self._starved: set[str] = set()
        """Tasks whose holder went for want of memory, until it comes back."""
        self._parts: dict[str, int] = {}
        """In how many parts each of those is to be done."""
        self._over: dict[str, Ended] = {}
        self._news: deque[Ended] = deque()

    def join(self, holder: str, ended: Mapping[str, int] = MappingProxyType({})) -> int:
        """A holder begins, or comes back: the number of its next task. One that it held when it
        was lost is next again, unless it was lost with it too often.

        `ended`: how many processes each of its machines has ended for want of memory, ever. Where
        that grew until a holder came back, memory is why it was lost.
        """
        held = self._held.setdefault(holder, [])
        before, self._ended[holder] = self._ended.get(holder, {}), ended
        if any(ended[one] > before[one] for one in ended.keys() & before.keys()):
            self.starve(holder)
        if name := self._working.get(holder):
            if name in self._starved:
                self._starved.remove(name)
                self._parts[name] = 2 * self.parts(name)
                for steps in (self._furthest, self._told):  # what is told of a part is its own
                    steps.pop(name, None)
                self._said[name] = "no memory is left for it"
            if (done := self._told.get(name, {}).get("done", 0)) > self._furthest.get(name, 0):
                self._furthest[name], self._lost[name] = done, 0
            self._lost[name] = self._lost.get(name, 0) + 1
            if self._lost[name] < self._tries:
                return len(held) - 1
            why = self._said.get(name, f"its worker was lost {self._lost[name]} times")
            del self._working[holder]
            self._end(Ended(name=name, error=Undone(why)))
        return len(held)

    def joined(self) -> int:
        """How many holders have ever begun, of those that may come back."""
        return len(self._held)

    def take(self, holder: str, number: int, leads: bool = True) -> str | Wait | None:
        """The name of the holder's task of that number; None where nothing is left to do. Only the
        process that `leads` moves its holder on; the others are given what it has."""
        held = self._held.setdefault(holder, [])
        if number < len(held):
            return held[number]
        if not leads and holder in self._working:  # which may yet be put back
            return WAIT
        if not self._waiting or (self._fail_fast and not all(e.well for e in self._over.values())):
            return None
        free = next((task.name for task in self._waiting.values() if self._is_free(task)), None)
        if free is None or not leads:
            return WAIT
        del self._waiting[free]
        held.append(free)
        self._working[holder] = free
        return free

    def tell(self, name: str, news: dict[str, Any]) -> None:
        """How far a task is: the steps `done`, and more for people; new points of its `curves`."""
        for key, points in news.pop("curves", {}).items():
            self._points.setdefault(name, {}).setdefault(key, []).extend(points)
        self._told[name] = news
        self._awaited.pop(name, None)

    def told(self) -> dict[str, dict[str, Any]]:
        """How far each task is, with the points of curves that are new since the last call."""
        new, self._points = self._points, {}
        return {
            name: news | ({"curves": new[name]} if name in new else {})
            for name, news in self._told.items()
        }

    def finish(self, holder: str, outcome: Outcome) -> None:
        """A holder has done what it could of its task: it is over, or waits for another sweep."""
        name = self._working.pop(holder)
        before = self._partly.pop(name, Outcome())
        failures = {**before.failures, **outcome.failures}
        notes = before.notes + outcome.notes
        if outcome.elsewhere:
            left = before.elsewhere | outcome.elsewhere
            self._partly[name] = Outcome(failures, elsewhere=left, notes=notes)
            self._waiting[name] = self._tasks[name]
            self._awaited[name] = None
            return
        # What a lost holder had done is not another sweep's.
        lost = self._again or name in self._lost
        found = outcome.found & before.elsewhere if lost else outcome.found
        self._end(Ended(failures, found, notes=notes, error=outcome.error, name=name))

    def starve(self, holder: str) -> None:
        """A holder has no memory left, or was ended for it. When it comes back it does its
        task in twice as many parts."""
        if name := self._working.get(holder):
            self._starved.add(name)

    def parts(self, name: str) -> int:
        """In how many parts a task is to be done, one after the other."""
        return self._parts.get(name, 1)

    def say(self, holder: str, traceback: str) -> None:
        """The last words of a holder that ends with an error, and may come back."""
        self._said[self._working[holder]] = traceback

    def leave(self, holder: str) -> None:
        """A holder will not come back: what it has not finished is another's."""
        self._held.pop(holder, None)
        if name := self._working.pop(holder, None):
            self._lost[name] = self._lost.get(name, 0) + 1
            self._waiting[name] = self._tasks[name]

    def ended(self) -> list[Ended]:
        """Tasks that are over since the last call."""
        found, self._news = list(self._news), deque()
        return found

    def awaited(self) -> list[str]:
        """Tasks that wait for another sweep, which makes a part of them."""
        return list(self._awaited)

    def news(self) -> tuple[dict[str, dict[str, Any]], list[Ended], int, list[str]]:
        """`told`, `ended`, `joined` and `awaited` in one call: a driver asks all day."""
        return self.told(), self.ended(), self.joined(), self.awaited()

    def abandon(self, error: str = "") -> None:
        """No holder is left: what is not over was not done."""
        for name in [*self._waiting, *self._working.values()]:
            self._end(Ended(name=name, error=Undone(self._said.get(name, error))))

    def _is_free(self, task: Task) -> bool:
        return self._over.keys() >= task.after | task.needs

    def _end(self, ended: Ended) -> None:
        """A task is over, and so is what needed it where it did not end well."""
        if ended.name in self._over:
            return
        self._over[ended.name] = ended
        self._awaited.pop(ended.name, None)
        self._news.append(ended)
        if not ended.well:
            error = ended.error or Undone(next(iter(ended.failures.values())))
            for task in [one for one in self._waiting.values() if ended.name in one.needs]:
                del self._waiting[task.name]
                self._end(Ended(name=task.name, error=error))


def width(tasks: Sequence[Task]) -> int:
    """How many tasks can be at work at once, about: the most that are as far from the beginning.
    More workers than that would only wait."""
    by_name = {task.name: task for task in tasks}

    @cache
    def depth(name: str) -> int:
        return 1 + max((depth(one) for one in by_name[name].after | by_name[name].needs), default=0)

    return max(Counter(map(depth, by_name)).values(), default=0)
