"""`raycib ls`: the sweeps of a results folder, and the cells of one."""

import json
from collections.abc import Iterator, Mapping
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


def sweeps(out: str) -> Table:
    """The finished sweeps below `out`, the newest first, then those that began. Raises `UserError`
    where there is none."""
    folder = folder_of(out)
    read, unreadable = finished(out)
    rows = [[*_of(results)] for results in read]
    rows += [[name, why] for name, why in unreadable.items()]
    rows += [[place.parent.name, said] for place, said in _unfinished(folder)]
    if not rows:
        raise UserError(f"no sweep in {folder}: run one of sweeps/*.py with --out {folder}")
    heads = ("Sweep", "Finished", "Cells", "Failed", "Seeds", "Model", "HRR, %: before, cells")
    return table_of(heads, rows)


def _of(results: Results) -> Iterator[str]:
    cells = results.cells
    yield results.sweep
    yield results.created[:16].replace("T", " ")
    yield f"{len(cells)}"
    yield f"{sum(bool(cell.failed) for cell in cells) or ''}"
    yield f"{len({cell.seed for cell in cells})}"
    yield one_line(results.model.name, 30)
    rates = [c.scores.hrr.value for c in cells if c.scores and c.scores.hrr]
    known = [rate for rate in rates if rate is not None]
    before = aligned_scores(results).get("hrr")
    first = "" if before is None else f"{100 * before:.1f}"
    there = f"{100 * min(known):.1f} to {100 * max(known):.1f}" if known else "not measured"
    by_rule = " not refused" * results.judge.by_rule
    yield ", ".join(filter(None, (first, there))) + by_rule * bool(known)


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


def cells(out: str, sweep: str) -> Table:
    """The cells of a finished sweep, and the model before them: rates in %, losses in nats. Raises
    `UserError`."""
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
