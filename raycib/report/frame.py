"""Finished sweeps as data frames: one row for each cell, one flat column for each number."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from raycib.config.menu import menu
from raycib.metrics import METRICS
from raycib.report.forms import BEFORE
from raycib.report.scores import RATE_PARTS, aligned_scores, flat_scores, strength_name, swept
from raycib.report.text import one_line, plain
from raycib.results import FILE, Results, Scores, read_results

RATES = tuple(name for name, one in METRICS.items() if one.counted)
NUMBERS = (
    "eval_loss", "utility", "mutual_information", "mutual_information_before",
    "mutual_information_ceiling", "mutual_information_last_prompt",
    "mutual_information_last_prompt_before", "cosine", "negative_cosine",
    "negative_cosine_before", "distance",
)  # fmt: skip
SCORE_COLUMNS = (*(r + end for r in RATES for end in RATE_PARTS.values()), *NUMBERS)
IDENTITY = (
    "sweep", "key", "model", "task", "method", "series", "strength", "strength_name", "seed",
    "failed",
)  # fmt: skip
OLD_NAME = "lam"
"""Of every method's strength, for those who read frames by it."""
COST = ("steps", "rank", "trained")
NAMES = {kind: method.about.name for kind, method in menu().items()} | {
    "lora_variant": "LoRA variant"
}
"""How people write the methods; others are shown as they are, with spaces for underscores."""
ALIGNED = "aligned"
"""The method of the model before fine-tuning."""
PLAIN = "lora"
"""The method of cells at strength 0: the common first point of every series of strengths."""
RADII = ("case2_ball",)
"""Methods that hold all at 0, and less the larger their strength."""
SYMBOLS = {"lam": "λ", "rho": "ρ", "beta": "β", "epsilon": "ε"}
"""Of strengths, by what methods call them."""


def to_frame(results: Results, numbers: Sequence[str] = ()) -> pd.DataFrame:
    """One row for each cell of a sweep, failed cells included.

    ``failed`` holds the reason or None. ``series`` names the cells that differ by strength and
    seed alone: their ``label``, or else the method and what else the sweep varies; then the model
    and the task where there are several. ``strength`` is the method's, 0 for plain LoRA, and
    ``strength_name`` what the method calls it ("lam", "epsilon"); "" where nobody here knows it.
    ``lam`` is the same number, as older frames call it, and in no file.
    ``harmful_ratio`` and ``without_harmful`` are there where some task has harmful rows.
    ``safety_data`` says whether it trains on refusals or harmful prompts as well. ``cost_steps``
    counts optimiser steps of the whole chain, ``cost_rank`` is the exported adapter's. Rates are
    in [0, 1], losses and information in nats. ``numbers`` are columns that a study needs, empty
    where no cell has them.
    """
    cells = results.cells
    columns = (*SCORE_COLUMNS, *numbers)
    axes = swept(cell for cell in cells if not cell.label)
    models, tasks = ({getattr(cell, name) for cell in cells} for name in ("model", "task"))
    poisoned = any(cell.task_data.harmful_ratio for cell in cells)
    rows = []
    for cell in cells:
        label = [cell.label or cell.method_name or NAMES.get(cell.method, cell.method)]
        if not cell.label:
            label += [f"{n} {cell.parameters[n]}" for n in axes if n in cell.parameters]
        place = [cell.model] * (len(models) > 1) + [cell.task] * (len(tasks) > 1)
        row = {
            "sweep": results.sweep,
            "key": cell.key,
            "model": cell.model,
            "task": cell.task,
            "method": cell.method,
            "strength": cell.strength,
            "seed": cell.seed,
            "series": one_line(", ".join(label + place)),
            "strength_name": strength_name(cell),
            "failed": one_line(cell.failed) if cell.failed else None,
            "safety_data": cell.safety_data,
            "label": one_line(", ".join(label)),
            OLD_NAME: cell.strength,
        }
        if poisoned:
            row["harmful_ratio"] = cell.task_data.harmful_ratio
            row["without_harmful"] = cell.task_data.without_harmful
        scores = flat_scores(cell.scores)
        scores |= {f"cost_{name}": getattr(cell.cost, name) for name in COST}
        taken = {*IDENTITY, *columns, *Scores.model_fields, *row, *scores}
        for name, value in cell.parameters.items():
            if (name, value) != (OLD_NAME, cell.strength):
                row[f"parameter_{name}" if name in taken else name] = value
        rows.append({n: plain(v) if isinstance(v, str) else v for n, v in (row | scores).items()})
    frame = pd.DataFrame(rows)
    for name in (*IDENTITY, *columns):
        if name not in frame:
            frame[name] = None
    for name in columns:
        frame[name] = pd.to_numeric(frame[name])
    frame["failed"] = frame["failed"].astype(object).where(frame["failed"].notna(), None)
    others = [name for name in frame.columns if name not in IDENTITY]
    # A copy stands in one piece, of which rows are taken many times faster.
    return frame[[*IDENTITY, *others]].copy()


def symbol_of(frame: pd.DataFrame) -> str:
    """What to call the strength of all cells: a letter where their methods have one name for it."""
    used = {*frame.loc[frame["method"] != PLAIN, "strength_name"]}
    return SYMBOLS.get(used.pop() if len(used) == 1 else "" if used else "lam", "strength")


def cell_name(cell: Mapping[str, Any] | pd.Series, symbol: str = "Strength") -> str:
    """ "CIB, λ = 5, seed 2"; ``symbol`` is what the study calls a strength."""
    return f"{cell['series']}, {symbol.lower()} = {cell['strength']:g}, seed {cell['seed']}"


def baseline(results: Results) -> pd.DataFrame:
    """The row of the model before fine-tuning, as ``to_frame`` has cells: its method is "aligned",
    it has no strength and no seed. Empty where it was not measured."""
    scores = aligned_scores(results)
    model = results.model
    names = {"sweep": results.sweep, "key": model.weights, "model": model.name}
    rows = [{**names, "method": ALIGNED, "series": BEFORE, **scores}] if scores else []
    return pd.DataFrame(rows)


def load(folder: str | Path, with_baseline: bool = False) -> pd.DataFrame:
    """The cells of every sweep under ``folder``, which may also be one sweep's folder; before those
    of each, ``with_baseline``, the row of the model before fine-tuning.

    Raises:
        FileNotFoundError: no sweep has finished there.
    """
    root = Path(folder)
    files = sorted({*root.glob(FILE), *root.glob(f"*/{FILE}")})
    if not files:
        raise FileNotFoundError(f"no {FILE} in {root} or one level below it")
    frames = []
    for file in files:
        results = read_results(file)
        cells = to_frame(results)
        first = baseline(results) if with_baseline else cells.iloc[:0]
        frames += [
            pd.concat([first.reindex(columns=cells.columns), cells]) if len(first) else cells
        ]
    found = pd.concat(frames, ignore_index=True)
    found["failed"] = found["failed"].astype(object).where(found["failed"].notna(), None)
    return found.astype({"seed": "Int64"}) if with_baseline else found


def strength_series(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each series of finished cells with plain LoRA of its model and task as strength 0; without
    it where a method's zero is not plain LoRA: of a ball, which holds all at 0, of SaLoRA from the
    task's start, which moves other first weights, and where cells of its own are at 0."""
    done = frame[frame["failed"].isna()]
    plain = done[done["method"] == PLAIN]
    for name, cells in done[done["method"] != PLAIN].groupby("series", sort=False):
        first = cells.iloc[0]
        zero = plain[(plain["model"] == first["model"]) & (plain["task"] == first["task"])]
        other = first["method"] in RADII or first.get("init") == "task"
        zero = zero.iloc[: 0 if other or not cells["strength"].all() else None]
        if cells["strength"].nunique() + bool(len(zero)) > 1:
            yield str(name), pd.concat([zero, cells]).sort_values(["strength", "seed"])
