"""What people see of a sweep while it runs: its report, and its runs in MLflow.

Two threads of the driver's make them from what the store has and from the points of curves that
workers tell. They take a small share of the time, and whatever goes wrong in them the sweep goes
on.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from raycib.counting import count
from raycib.results import Histories, Results, Samples
from raycib.runtime.progress import Points
from raycib.runtime.run import Work
from raycib.runtime.shown import report_of
from raycib.runtime.summary import all_samples, stored_histories
from raycib.runtime.sweep import Sweep
from raycib.store.kinds import GENERATIONS, VERDICTS
from raycib.tracking import Tracker, default_uri
from raycib.tracking.session import in_a_line, tracking_room, without_password

if TYPE_CHECKING:
    from raycib.report.report import Report

SHARE = 0.02
"""Of the time of the driver, which page and runs may each take."""
LOOK_S, LEAST_S, TRY_AGAIN_S = 1.0, 5.0, 60.0
"""Between two looks, two pages or two calls of MLflow, and after one that failed."""
PATIENCE_S = 20.0
"""For what is under way when the sweep ends."""
LATER = "corrections of the judge, acceptance cards and further judges follow at the end"

Summarised = Callable[[Sweep, Mapping[str, str]], Results]
"""Results of a sweep as it is, with the failures so far."""


@dataclass
class Pace:
    """How often something is done: the dearer, the more seldom."""

    due: float = 0.0
    cost: float | None = None
    """Of the last time, in seconds of its thread; of the first one, which imports, nothing."""

    def do(self, what: Callable[[], None]) -> None:
        """Do it, if it is due. Raises what it raises, and is then due in a while."""
        if time.monotonic() < self.due:
            return
        self.due = time.monotonic() + TRY_AGAIN_S
        began = time.thread_time()
        what()
        self.cost = 0.0 if self.cost is None else time.thread_time() - began
        self.due = time.monotonic() + self.next_s

    @property
    def next_s(self) -> float:
        """Seconds until it is done again."""
        return max(LEAST_S, (self.cost or 0.0) / SHARE)


class Live:
    """The threads, for as long as the work goes on."""

    def __init__(self, work: Work, folder: Path, summarised: Summarised) -> None:
        self._work, self._folder, self._summarised = work, folder, summarised
        self._uri = default_uri(folder.parent)
        self._tracker: Tracker | None = None
        self._pages, self._runs = Pace(), Pace()
        self._lock, self._making = threading.Lock(), threading.Lock()
        self._points: dict[str, dict[int, Mapping[str, Any]]] = {}
        """Of curves by step, of stages that are trained now."""
        self._began: dict[str, int] = {}
        """When each of them took its first step, in milliseconds since 1970."""
        self._stored: dict[str, Any] = {}
        """Curves of stages that are trained."""
        self._there: tuple[Any, ...] = ()
        """What there was when results were last made."""
        self._made: tuple[Sweep, Results, Samples] | None = None
        self._told: Any = None
        """The results that MLflow has, and how many stages had begun."""
        self._drawn: dict[str, bytes] = {}
        self._of: Results | None = None
        """The results that drawings are of."""
        self._failing: set[str] = set()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._go, args=args, daemon=True)
            for args in (("report", self._pages, self._write_page),
                         ("MLflow", self._runs, self._show_runs))
        ]  # fmt: skip
        work.view.new_points = self.hear

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        self._stop.set()
        until = time.monotonic() + PATIENCE_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if kind is not None and not any(thread.is_alive() for thread in self._threads):
            self._pages.due = self._runs.due = 0.0
            self._try("report", self._pages, lambda: self._write_page(stopped=True))
            self._try("MLflow", self._runs, self._stop_runs)

    def hear(self, points: Points) -> None:
        """New points of curves; whoever trains waits for nothing here."""
        with self._lock:
            if not self._began:
                self._pages.due = self._runs.due = 0.0
            now = int(1000 * time.time())
            for key, entries in points.items():
                self._began.setdefault(key, now)
                self._points.setdefault(key, {}).update({one["step"]: one for one in entries})

    def _go(self, name: str, pace: Pace, what: Callable[[], None]) -> None:
        while not self._stop.wait(LOOK_S):
            self._try(name, pace, what)

    def _try(self, name: str, pace: Pace, what: Callable[[], None]) -> None:
        """A view may fail, the sweep may not; that it does is said once, while the sweep goes on:
        as it is stopped, imports of libraries are as well, and fail in words of their own."""
        try:
            pace.do(what)
        except Exception as error:
            if name not in self._failing and not self._stop.is_set():
                self._failing.add(name)
                where = f" at {without_password(self._uri)}" if name == "MLflow" else ""
                print(
                    f"note: {name}{where} is not shown while this runs "
                    f"({in_a_line(error)}); it is tried again",
                    flush=True,
                )

    def _results(self) -> tuple[Sweep, Results, Samples]:
        """Those of what is there; made anew where something is."""
        work, store = self._work, self._work.sweep.store
        failures = {key: reason for key, (reason, _) in dict(work.failures).items()}
        kinds = [len(store.keys(kind)) for kind in (GENERATIONS, VERDICTS)]
        there = (len(work.sweep.trained), len(failures), *kinds)
        if self._made is None or there != self._there:
            sweep = work.sweep.seen()
            results = self._summarised(sweep, failures)
            # An answer without a verdict yet is none whose verdict could not be read.
            scored = {cell.key for cell in results.cells if not cell.failed}
            scored |= {"aligned"} if results.aligned.scores else set()
            samples = {k: v for k, v in all_samples(sweep).items() if k in scored}
            self._made, self._there = (sweep, results, samples), there
        return self._made

    def _curves(self, sweep: Sweep) -> Histories:
        """Of stages that are trained from the store, and of those that are trained now."""
        new = sweep.trained.intersection(sweep.stages).difference(self._stored)
        self._stored |= stored_histories(sweep.store, sorted(new))
        with self._lock:
            for key in new:
                self._points.pop(key, None)
            now = {key: sorted(p.items()) for key, p in self._points.items()}
        return self._stored | {key: [one for _, one in points] for key, points in now.items()}

    def _write_page(self, stopped: bool = False) -> None:
        from raycib.report.page import CURVES, Unfinished, draw, page
        from raycib.report.writing import write_text

        with self._making:
            sweep, results, samples = self._results()
            curves = self._curves(sweep)
        report = _so_far(sweep, results, samples, curves)
        if results is not self._of:
            self._drawn, self._of = draw(report), results
        else:
            self._drawn |= draw(report, only=CURVES)
        done = sum(not cell.failed for cell in results.cells)
        unfinished = Unfinished(
            when=datetime.now().astimezone().isoformat(timespec="seconds"),
            told=(
                f"{count(done, 'cell has', 'cells have')} scores, of {len(results.cells)}; "
                f"{self._work.view.said()}"
            ),
            later=LATER,
            again_s=None if stopped else round(self._pages.next_s) + 1,
        )
        text = page(report, samples, self._drawn, unfinished)
        write_text(self._folder / "report.html", text)

    def _show_runs(self) -> None:
        with self._making:
            sweep, results, samples = self._results()
            curves = self._curves(sweep)
        with self._lock:
            began = dict(self._began)
        with tracking_room(self._uri):
            if self._tracker is None:
                self._tracker = Tracker(self._uri, results.sweep)
            if self._told is None or self._told[0] is not results or self._told[1] < len(began):
                stored = {key: times[0] for key, times in sweep.times.items()}
                failed = self._work.failures
                unfinished = {
                    cell.key: began.get(cell.key, stored.get(cell.key))
                    for cell in results.cells
                    if cell.failed and cell.key not in failed
                }
                self._tracker.show(results, self._stored, samples, sweep.times, unfinished)
                self._told = (results, len(began))
            steps = {key: sweep.stages[key].steps for key in curves if key in sweep.stages}
            self._tracker.add_points({key: curves[key] for key in steps}, steps)

    def _stop_runs(self) -> None:
        if self._tracker is not None:
            with tracking_room(self._uri):
                self._tracker.stop()


def _so_far(sweep: Sweep, results: Results, samples: Samples, curves: Histories) -> "Report":
    """The report of the cells that have scores, with the loss curves of all."""
    whole = report_of(sweep, results, samples, curves)
    scored = results.but(cells=[cell for cell in results.cells if not cell.failed])
    if scored.cells:
        report = report_of(sweep, scored, samples, curves)
        headline = f"So far, of the cells that have scores: {report.headline}"
        return replace(report, curves=whole.curves, headline=headline)
    none = {"sections": [], "claims": [], "warnings": [], "headline": "No cell has scores yet."}
    nothing = {"frame": whole.frame.iloc[:0], "cells": whole.cells.iloc[:0]}
    return replace(whole, results=scored, **none, **nothing)
