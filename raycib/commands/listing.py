"""`raycib ls`: the sweeps of a results folder, and the cells of one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from raycib.commands.stored import finished
from raycib.commands.terminal import table_of
from raycib.errors import UserError
from raycib.metrics import METRICS
from raycib.report.forms import BEFORE, number
from raycib.report.frame import to_frame
from raycib.report.not_refused import in_words
from raycib.report.scores import aligned_scores
from raycib.report.text import one_line
from raycib.results import FILE, Results, folder_of

SHOWN = ("hrr", "refusal_rate", "over_refusal", "accuracy", "utility", "eval_loss")
"""Scores of a cell that fit a terminal."""
KEY_DIGITS = 12
"""Of a key that is shown: enough to name a stage."""


def sweeps(out: str) -> list[dict[str, Any]]:
    """The finished sweeps below `out`, the newest first, then those that began, which have `why`
    they are not finished. Rates are in [0, 1]. Raises `UserError` where there is none."""
    folder = folder_of(out)
    read, unreadable = finished(out)
    found = [_of(results) for results in read]
    found += [{"sweep": name, "why": why} for name, why in unreadable.items()]
    found += [{"sweep": place.parent.name, "why": said} for place, said in _unfinished(folder)]
    if not found:
        raise UserError(f"no sweep in {folder}: run one of sweeps/*.py with --out {folder}")
    return found


def _of(results: Results) -> dict[str, Any]:
    cells = results.cells
    rates = [c.scores.hrr.value for c in cells if c.scores and c.scores.hrr]
    known = [rate for rate in rates if rate is not None]
    return {
        "sweep": results.sweep,
        "finished": results.created,
        "cells": len(cells),
        "failed": sum(bool(cell.failed) for cell in cells),
        "seeds": len({cell.seed for cell in cells}),
        "model": results.model.name,
        "hrr_before": aligned_scores(results).get("hrr"),
        "hrr_lowest": min(known, default=None),
        "hrr_highest": max(known, default=None),
        "by_rule": results.judge.by_rule,
    }


def table_of_sweeps(found: Sequence[Mapping[str, Any]]) -> Table:
    """The same for people, rates in %."""
    heads = ("Sweep", "Finished", "Cells", "Failed", "Seeds", "Model", "HRR, %: before, cells")
    return table_of(
        heads, [[one["sweep"], one["why"]] if "why" in one else [*_told(one)] for one in found]
    )


def _told(one: Mapping[str, Any]) -> Iterator[str]:
    yield one["sweep"]
    yield one["finished"][:16].replace("T", " ")
    yield f"{one['cells']}"
    yield f"{one['failed'] or ''}"
    yield f"{one['seeds']}"
    yield one_line(one["model"], 30)
    before, low, high = (one[f"hrr_{name}"] for name in ("before", "lowest", "highest"))
    known = low is not None
    first = "" if before is None else f"{100 * before:.1f}"
    there = f"{100 * low:.1f} to {100 * high:.1f}" if known else "not measured"
    by_rule = " not refused" * one["by_rule"]
    yield ", ".join(filter(None, (first, there))) + by_rule * known


def _unfinished(folder: Path) -> Iterator[tuple[Path, str]]:
    """Sweeps that have no results, and how far they came."""
    for place in sorted(folder.glob("*/progress.json")):
        if (place.parent / FILE).exists():
            continue
        try:
            phase = json.loads(place.read_text())["phase"]
        except (OSError, ValueError, KeyError):  # it is being written
            phase = "starting"
        yield place, f"not yet; last seen {one_line(phase, 30)}"


def results_of(out: str, sweep: str) -> Results:
    """A finished sweep's. Raises `UserError`."""
    read, unreadable = finished(out)
    if sweep in unreadable:
        raise UserError(unreadable[sweep])
    for place, said in _unfinished(folder_of(out)):
        if place.parent.name == sweep:
            raise UserError(f"{sweep} is not finished ({said}): run it again, and it goes on")
    results = next((one for one in read if one.sweep == sweep), None)
    if results is None:
        names = ", ".join(one.sweep for one in read) or "none: run one of sweeps/*.py"
        raise UserError(f"no finished sweep {sweep!r} in {folder_of(out)}; there is {names}")
    return results


def table_of_cells(results: Results) -> Table:
    """The cells of a sweep, and the model before them: rates in %, losses in nats."""
    frame = to_frame(results)
    tasks = frame["task"].nunique() > 1
    rows = [["", BEFORE, "", "", *[""] * tasks, *_numbers(aligned_scores(results))]]
    for row in frame.to_dict("records"):
        place = [row["key"][:KEY_DIGITS], row["series"], f"{row['strength']:g}", f"{row['seed']}"]
        place += [row["task"]] * tasks
        failed = row["failed"] is not None
        rows.append([*place, *([f"failed: {row['failed']}"] if failed else _numbers(row))])
    heads = ["Key", "Method", "Strength", "Seed", *["Task"] * tasks]
    titles = [METRICS[name].heading for name in SHOWN]
    return table_of([*heads, *(map(in_words, titles) if results.judge.by_rule else titles)], rows)


def _numbers(scores: Mapping[Any, Any]) -> Iterator[str]:
    for name in SHOWN:
        metric = METRICS[name]
        yield number(f".{metric.decimals}f", metric.factor)({name: scores.get(name)}, name)
