"""The view of a sweep on a Ray cluster: workers tell who gives them their tasks, a thread of the
driver shows it."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import ray
from rich.live import Live
from rich.table import Table

from raycib.runtime.progress import LINE_EVERY, News, ProgressView

WAITS_AFTER = 5
"""Looks, a second or less apart, after which work without room is said to wait."""


class Reporter:
    """A worker's side: at most one message a second of a group, never in the way of training."""

    def __init__(self, leases: Any) -> None:
        self._leases, self._last = leases, ("", 0.0)

    def __call__(self, group: str, news: Mapping[str, Any], last: bool) -> None:
        """Say `news`, unless something was said of the group less than a second ago."""
        now, (before, said) = time.monotonic(), self._last
        if last or group != before or now - said > 1.0:
            self._leases.tell.remote(group, dict(news))
            self._last = group, now


class LiveView(ProgressView):
    """The driver's side: a live view in a terminal, a line at times in a log, until closed."""

    def __init__(self, folder: Path, total_steps: int) -> None:
        super().__init__(folder, total_steps)
        self._waiting = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def enter(self, phase: str) -> None:
        """A new phase begins; the live view shows it by itself."""
        self._begin(phase)
        if not self.console.is_terminal:
            self.print_line()

    def _tell_at_times(self, now: bool = False) -> None:
        """The thread does."""

    def tell(self, groups: dict[str, News], detail: str) -> None:
        """How far the groups are that are trained, and what is waited for."""
        self.detail = detail
        self._take(groups)
        self.heard()

    @property
    def waits(self) -> str:
        """What of the cluster's work has had no room for a while."""
        return without_room() if self._waiting >= WAITS_AFTER else ""

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_row(self.line())
        for name, news in sorted(self.groups.items()):
            terms = "  ".join(f"{k} {v:.3f}" for k, v in news["terms"].items())
            share = news["done"] / max(1, news["steps"])
            bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
            table.add_row(f"  {bar} {share:4.0%}  {self.names.get(name, name)}  {terms}")
        return table

    def _show(self) -> None:
        live = Live(console=self.console, refresh_per_second=4, transient=True)
        terminal = self.console.is_terminal
        if terminal:
            live.start()
        last = time.monotonic()
        try:
            while not self._stop.wait(0.5 if terminal else 1.0):
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
        if not wanted:
            return ""
        free, there = ray.available_resources(), ray.cluster_resources()
    except Exception:  # a view may fail, the sweep may not
        return ""
    said = [
        f"{max(sum(b.get(kind, 0) for b in group) for group in wanted):g} {kind}s wanted and "
        f"{free.get(kind, 0):g} of {there.get(kind, 0):g} free"
        for kind in ("CPU", "GPU")
        if any(b.get(kind, 0) for group in wanted for b in group)
    ]
    return f"waiting for room: {', '.join(said)}"
