"""The view of a sweep on a Ray cluster: workers tell an actor, a thread of the driver shows it."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import ray
from rich.live import Live
from rich.table import Table

from raycib.runtime.progress import LINE_EVERY, News, ProgressView

ACTOR = "raycib-progress"
WAITS_AFTER = 5
"""Looks, a second or less apart, after which work without room is said to wait."""


@ray.remote(num_cpus=0)
class ProgressActor:
    """The last word of every group; workers write, the driver reads."""

    def __init__(self) -> None:
        self._groups: dict[str, News] = {}

    def tell(self, group: str, news: News) -> None:
        """Replace what is known of `group`."""
        self._groups[group] = news

    def read(self) -> dict[str, News]:
        """Everything known."""
        return self._groups


class Reporter:
    """A worker's side: at most one message a second, never in the way of training."""

    def __init__(self) -> None:
        self._last = 0.0
        try:
            self._actor: Any = ray.get_actor(ACTOR)
        except ValueError:  # nobody watches
            self._actor = None

    def __call__(self, group: str, news: Mapping[str, Any], last: bool) -> None:
        """Say `news`, unless something was said less than a second ago."""
        now = time.monotonic()
        if self._actor is not None and (last or now - self._last > 1.0):
            self._actor.tell.remote(group, dict(news))
            self._last = now


class LiveView(ProgressView):
    """The driver's side: a live view in a terminal, a line at times in a log, until closed."""

    def __init__(self, folder: Path, total_steps: int) -> None:
        super().__init__(folder, total_steps)
        self._waiting = 0
        self._stop = threading.Event()
        self._actor: Any = ProgressActor.options(name=ACTOR, get_if_exists=True).remote()  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        ray.kill(self._actor)

    def enter(self, phase: str) -> None:
        """A new phase begins; the live view shows it by itself."""
        self.phase, self.detail, self.groups = phase, "", {}
        if not self.console.is_terminal:
            self.print_line()

    @property
    def waits(self) -> str:
        """What of the cluster's work has had no room for a while."""
        return without_room() if self._waiting >= WAITS_AFTER else ""

    def _look(self) -> None:
        try:
            found: Any = ray.get(self._actor.read.remote(), timeout=5)
        except Exception:  # a view may fail, the sweep may not
            found = {}
        self.groups = found if self.phase == "training" else {}

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_row(self.line())
        for name, news in sorted(self.groups.items()):
            terms = "  ".join(f"{k} {v:.3f}" for k, v in news["terms"].items())
            share = news["done"] / max(1, news["steps"])
            bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
            table.add_row(f"  {name}  {news['slots']} slots  {bar} {share:4.0%}  {terms}")
        return table

    def _show(self) -> None:
        live = Live(console=self.console, refresh_per_second=4, transient=True)
        terminal = self.console.is_terminal
        if terminal:
            live.start()
        last = time.monotonic()
        try:
            while not self._stop.wait(0.5 if terminal else 1.0):
                if self.phase == "training":
                    self._look()
                self.write()
                self._waiting = self._waiting + 1 if without_room() else 0
                if self._waiting == WAITS_AFTER:
                    last = -LINE_EVERY  # said at once
                if terminal:
                    live.update(self._table())
                elif (now := time.monotonic()) - last >= LINE_EVERY:
                    self.print_line()
                    last = now
        finally:
            if terminal:
                live.stop()


def without_room() -> str:
    """What of the cluster's work waits for CPUs or GPUs, how much it wants and how much is free;
    "" where nothing does."""
    try:
        groups = ray.util.placement_group_table().values()
        wanted = [one["bundles"].values() for one in groups if one["state"] == "PENDING"]
        free, there = ray.available_resources(), ray.cluster_resources()
    except Exception:  # a view may fail, the sweep may not
        return ""
    if not wanted:
        return ""
    said = [
        f"{max(sum(b.get(kind, 0) for b in group) for group in wanted):g} {kind}s wanted and "
        f"{free.get(kind, 0):g} of {there.get(kind, 0):g} free"
        for kind in ("CPU", "GPU")
        if any(b.get(kind, 0) for group in wanted for b in group)
    ]
    return f"waiting for room: {', '.join(said)}"
