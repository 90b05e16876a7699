"""What a person sees while a sweep runs: the phase, and how far it is."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from rich.console import Console

LINE_EVERY = 30.0
"""Seconds between lines in a log."""
AT_ONCE = 2.0
"""Seconds of a phase. What is done in them was there already, and tells nothing of its speed."""

News = dict[str, Any]
"""Of a group: its slots, steps done and in all, the last terms of the loss, and new points of its
curves by stage."""
Points = Mapping[str, Sequence[Mapping[str, Any]]]
"""Of curves, by stage."""


class ProgressView:
    """A line when a phase begins, and one at times while it goes on; `progress.json` has the same
    for programs. Nothing runs beside the sweep: whoever works calls it."""

    waits = ""
    """What has had no room for a while; in one process nothing waits."""

    def __init__(self, folder: Path, total_steps: int) -> None:
        self.console = Console(file=sys.stdout, no_color="NO_COLOR" in os.environ or None)
        self.phase = "starting"
        self.detail = ""
        self.groups: dict[str, News] = {}
        self.names: Mapping[str, str] = {}
        """What people call the groups."""
        self.heard: Callable[[], None] = lambda: None
        """Called as news of training come from elsewhere."""
        self.new_points: Callable[[Points], None] = lambda points: None
        """Told of new points of curves."""
        self._file, self._total = folder / "progress.json", total_steps
        self._last = self._began = time.monotonic()
        self._speed = Speed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def enter(self, phase: str) -> None:
        """A new phase begins."""
        self._begin(phase)
        self.print_line()
        self.write()

    def _begin(self, phase: str) -> None:
        self.phase, self.detail, self.groups, self._speed = phase, "", {}, Speed()

    def __call__(self, group: str, news: Mapping[str, Any], last: bool) -> None:
        """A group has taken a step, perhaps its `last`."""
        self.detail = ""
        self._take({group: dict(news)})
        self._tell_at_times(last)

    def count(self, done: int, total: int, said: str) -> None:
        """So much of what a phase does is done; `said` says what in words. With none done something
        new begins, which has a speed of its own."""
        if not done:
            self._speed = Speed()
        left = self._speed.left(done, total)
        self.detail = ", ".join(part for part in (said, left) if part)
        self._tell_at_times()

    def _tell_at_times(self, now: bool = False) -> None:
        if now or time.monotonic() - self._last >= LINE_EVERY:
            self.print_line()
            self.write()

    def _take(self, groups: Mapping[str, News]) -> None:
        for news in groups.values():
            if points := news.pop("curves", None):
                self.new_points(points)
        self.groups = {**self.groups, **groups}  # another thread may be going through them

    def wait(self, tasks: Sequence[str]) -> None:
        """Say at once which tasks wait for another sweep on this store."""
        if (detail := waiting(tasks)) != self.detail:
            self.detail = detail
            self.print_line()

    def print_line(self) -> None:
        """Say where the sweep is."""
        self.console.print(self.line(), highlight=False, soft_wrap=True)
        self._last = time.monotonic()

    def line(self) -> str:
        """Where the sweep is, in one line."""
        return f"[{time.monotonic() - self._began:5.0f} s] {self.said()}"

    def said(self) -> str:
        """The same without the time."""
        parts = [self.phase, self.detail, self.waits]
        if self.groups:
            done = sum(news["done"] for news in self.groups.values())
            parts.append(f"{done}/{self._total} steps")
            parts += [f"{k} {v:.3f}" for k, v in self._mean_terms().items()]
            parts.append(self._speed.left(done, self._total))
        return ", ".join(part for part in parts if part)

    def _mean_terms(self) -> dict[str, float]:
        values: dict[str, list[float]] = {}
        for news in self.groups.values():
            for name, value in news["terms"].items():
                values.setdefault(name, []).append(value)
        return {name: sum(found) / len(found) for name, found in values.items()}

    def write(self) -> None:
        """Renew `progress.json`."""
        seconds = time.monotonic() - self._began
        news = {"phase": self.phase, "seconds": seconds, "groups": self.groups}
        partial = self._file.with_suffix(".part")
        with suppress(OSError):  # a full disk ends the view; the store says what it ends of results
            partial.write_text(json.dumps(news))
            partial.replace(self._file)


class Speed:
    """How long the rest of a phase takes, by what was done since it began."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._since, self._before = 0.0, 0

    def left(self, done: int, total: int) -> str:
        """From the mean speed so far; the range is that speed's, a quarter faster or slower. ""
        where it is not known."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
        if now - self._first < AT_ONCE:
            self._since, self._before = now, done
        if done <= self._before:
            return ""
        left = (total - done) * (now - self._since) / (done - self._before)
        return f"{0.8 * left:.0f} to {1.25 * left:.0f} s left"


def waiting(tasks: Sequence[str]) -> str:
    """What people are told where `tasks` wait for another sweep; "" where none does."""
    named = ", ".join(tasks[:2]) + ", ..." * (len(tasks) > 2)
    return f"waiting for another sweep, which does {named}" * bool(tasks)
