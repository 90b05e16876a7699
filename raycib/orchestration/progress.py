"""What a person sees while a sweep runs: a live view in a terminal, a line at times in a log."""

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import ray
from rich.console import Console
from rich.live import Live
from rich.table import Table

ACTOR = "raycib-progress"
LINE_EVERY = 30.0
"""Seconds between lines in a log."""
WAITS_AFTER = 5
"""Looks, a second or less apart, after which work without room is said to wait."""


@ray.remote(num_cpus=0)
class Board:
    """The last word of every pack; workers write, the driver reads."""

    def __init__(self) -> None:
        self._packs: dict[str, dict[str, Any]] = {}

    def tell(self, pack: str, news: dict[str, Any]) -> None:
        """Replace what is known of `pack`."""
        self._packs[pack] = news

    def read(self) -> dict[str, dict[str, Any]]:
        """Everything known."""
        return self._packs


class Teller:
    """A worker's side: at most one message a second, never in the way of training."""

    def __init__(self, pack: str) -> None:
        self._pack, self._last = pack, 0.0
        try:
            self._board: Any = ray.get_actor(ACTOR)
        except ValueError:  # nobody watches
            self._board = None

    def __call__(self, news: Mapping[str, Any], urgent: bool = False) -> None:
        """Say `news`, unless something was said less than a second ago."""
        now = time.monotonic()
        if self._board is not None and (urgent or now - self._last > 1.0):
            self._board.tell.remote(self._pack, dict(news))
            self._last = now


class Watch:
    """The driver's side: shows the phase, and the packs of the training phase, until closed."""

    def __init__(self, folder: Path, total_steps: int) -> None:
        self.console = Console(file=sys.stdout, no_color="NO_COLOR" in os.environ or None)
        self.phase = "starting"
        self.detail = ""
        self._file, self._total = folder / "progress.json", total_steps
        self._began, self._training_since = time.monotonic(), None
        self._waiting = 0
        self._stop = threading.Event()
        self._board: Any = Board.options(name=ACTOR, get_if_exists=True).remote()  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        ray.kill(self._board)

    def enter(self, phase: str, detail: str = "") -> None:
        """A new phase begins."""
        self.phase, self.detail = phase, detail
        if not self.console.is_terminal:
            self.console.print(self._line({}), highlight=False, soft_wrap=True)

    def _packs(self) -> dict[str, dict[str, Any]]:
        try:
            return ray.get(self._board.read.remote(), timeout=5)
        except Exception:  # a view may fail, the sweep may not
            return {}

    def _line(self, packs: dict[str, dict[str, Any]]) -> str:
        parts = [f"[{time.monotonic() - self._began:5.0f} s] {self.phase}", self.detail]
        if self._waiting >= WAITS_AFTER:
            parts.append(without_room())
        if packs:
            done = sum(news["done"] for news in packs.values())
            parts.append(f"{done}/{self._total} steps")
            parts += [f"{k} {v:.3f}" for k, v in self._mean_terms(packs).items()]
            parts.append(self._time_left(done))
        return ", ".join(part for part in parts if part)

    @staticmethod
    def _mean_terms(packs: dict[str, dict[str, Any]]) -> dict[str, float]:
        values: dict[str, list[float]] = {}
        for news in packs.values():
            for name, value in news["terms"].items():
                values.setdefault(name, []).append(value)
        return {name: sum(found) / len(found) for name, found in values.items()}

    def _time_left(self, done: int) -> str:
        """From the mean speed so far; the range is that speed's, a quarter faster or slower."""
        now = time.monotonic()
        if self._training_since is None:
            self._training_since = (now, done)
        since, before = self._training_since
        if done <= before or now - since < 2:
            return ""
        left = (self._total - done) * (now - since) / (done - before)
        return f"{0.8 * left:.0f} to {1.25 * left:.0f} s left"

    def _table(self, packs: dict[str, dict[str, Any]]) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_row(self._line(packs if self.phase == "training" else {}))
        if self.phase == "training":
            for name, news in sorted(packs.items()):
                terms = "  ".join(f"{k} {v:.3f}" for k, v in news["terms"].items())
                share = news["done"] / max(1, news["steps"])
                bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
                table.add_row(f"  {name}  {news['lanes']} lanes  {bar} {share:4.0%}  {terms}")
        return table

    def _show(self) -> None:
        live = Live(console=self.console, refresh_per_second=4, transient=True)
        terminal = self.console.is_terminal
        if terminal:
            live.start()
        last = time.monotonic()
        try:
            while not self._stop.wait(0.5 if terminal else 1.0):
                packs = self._packs() if self.phase == "training" else {}
                self._write(packs)
                self._waiting = self._waiting + 1 if without_room() else 0
                if self._waiting == WAITS_AFTER:
                    last = -LINE_EVERY  # said at once
                if terminal:
                    live.update(self._table(packs))
                elif (now := time.monotonic()) - last >= LINE_EVERY:
                    self.console.print(self._line(packs), highlight=False, soft_wrap=True)
                    last = now
        finally:
            if terminal:
                live.stop()

    def _write(self, packs: dict[str, dict[str, Any]]) -> None:
        news = {"phase": self.phase, "seconds": time.monotonic() - self._began, "packs": packs}
        partial = self._file.with_suffix(".part")
        with suppress(OSError):  # a full disk ends the view; the store says what it ends of results
            partial.write_text(json.dumps(news))
            partial.replace(self._file)


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
