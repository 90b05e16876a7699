"""What the Trade-offs paper's theorems need to know of a sweep's data and aligned model, for its
summary: read from the store and the rows, nothing computed on an accelerator here."""

import json
import math
from typing import Any, Literal

from raycib.data.divergence import entropy, mismatch, overlap
from raycib.evals.gaps import load_losses, mean_with_error
from raycib.evals.scores import Missing
from raycib.orchestration.sweep import Sweep
from raycib.orchestration.tradeoff import Tradeoff
from raycib.spec import (
    LANDSCAPE_ROWS,
    Case1,
    GapSpec,
    LandscapeSpec,
    ModelSpec,
    RowsSpec,
    TaskSpec,
    digest,
)
from raycib.store.kinds import ANSWER_TOKENS, LANDSCAPE

LANDSCAPE_FILE = "landscape.json"
"""Where `survey.survey` left what it found."""


def landscapes(sweep: Sweep) -> dict[str, LandscapeSpec]:
    """What is asked of the aligned model's loss landscape: on alignment data, and by task."""
    setup, found = sweep.setup, dict[str, LandscapeSpec]()

    def ask(what: Literal["lipschitz", "smoothness"], rows: RowsSpec) -> LandscapeSpec:
        return LandscapeSpec(what=what, model=setup.model, rows=rows, lora=setup.lora)

    for task, gaps in _gaps(sweep).items():
        # The first of some rows: a mean over them is computed hundreds of times.
        found["alignment"] = ask("lipschitz", setup.sets.first(gaps.alignment, LANDSCAPE_ROWS))
        found[task] = ask("smoothness", setup.sets.first(gaps.task, LANDSCAPE_ROWS))
    return found


def surveyed(sweep: Sweep) -> bool:
    """Whether all that the theorems ask of the aligned model is there."""
    if sweep.setup.tradeoff is None:
        return True
    shapes = (sweep.store.get(LANDSCAPE, spec.key) for spec in landscapes(sweep).values())
    rows = rows_trained_on(sweep).values()
    lengths = (sweep.store.get(ANSWER_TOKENS, tokens_key(sweep.setup.model, one)) for one in rows)
    return all(shapes) and all(lengths)


def theory(sweep: Sweep) -> dict[str, Any]:
    """The theorems' terms as plain JSON: nats an answer, distances in [0, 1], and whether each is
    exact or estimated."""
    tradeoff = sweep.setup.tradeoff
    assert tradeoff is not None
    gaps = _gaps(sweep)
    proxies = _proxies(sweep, tradeoff)
    tasks = {run.final.task.name: run.final.task for run in sweep.runs}
    least = entropy(tradeoff.held_out)
    aligned: dict[str, Any] = {}
    alignment_gap = None
    for task, spec in gaps.items():
        try:
            losses = load_losses(sweep.store, sweep.setup.model.key, spec)
        except Missing:
            continue
        nll = mean_with_error(losses["task"])["value"]
        floor = entropy(spec.task.source)
        aligned[task] = {
            "capability_nll": nll,
            "capability_gap_exact": None if floor is None else nll - floor,
        }
        if least is not None:
            alignment_gap = mean_with_error(losses["alignment"])["value"] - least
    shapes = {name: _landscape(sweep, spec) for name, spec in landscapes(sweep).items()}
    return {
        "aligned": aligned,
        "alignment_gap_exact": alignment_gap,
        "answer_tokens": _answer_tokens(sweep),
        "proxies": [
            {
                "name": name,
                "rows": proxy.num_rows,
                **_finite(mismatch(tradeoff.alignment.source, proxy.source)._asdict()),
            }
            for name, proxy in proxies.items()
        ],
        "overlaps": [
            {"proxy": name, "task": task, **_finite(overlap(proxy.source, rows.source)._asdict())}
            for name, proxy in proxies.items()
            for task, rows in tasks.items()
        ],
        "lipschitz": shapes.get("alignment") or [],
        "smoothness": [{"task": task, **shapes[task]} for task in gaps if shapes.get(task)],
    }


def tokens_key(model: ModelSpec, rows: TaskSpec) -> str:
    """Of the mean length of the answers in some rows, as a model's tokenizer cuts them."""
    what = {"tokenizer": model.tokenizer, "rows": rows.rows, "max_length": rows.max_length}
    return digest({"answer tokens": 1, **what})


def rows_trained_on(sweep: Sweep) -> dict[str, TaskSpec]:
    """All rows that a loss of this sweep is a mean over: "open", "proxy:near outputs"."""
    tradeoff = sweep.setup.tradeoff
    proxies = _proxies(sweep, tradeoff) if tradeoff else {}
    tasks = {run.final.task.name: run.final.task for run in sweep.runs}
    return tasks | {f"proxy:{name}": proxy for name, proxy in proxies.items()}


def _answer_tokens(sweep: Sweep) -> dict[str, float]:
    found = {}
    for name, rows in rows_trained_on(sweep).items():
        if record := sweep.store.get(ANSWER_TOKENS, tokens_key(sweep.setup.model, rows)):
            found[name] = record.about["mean"]
    return found


def _gaps(sweep: Sweep) -> dict[str, GapSpec]:
    """Rows of the gaps, by task."""
    return {run.final.task.name: run.evals.gaps for run in sweep.runs if run.evals.gaps}


def _proxies(sweep: Sweep, tradeoff: Tradeoff) -> dict[str, TaskSpec]:
    """The safety data that a cell of this sweep uses, by name."""
    used = {m.safety.name for run in sweep.runs if isinstance(m := run.method, Case1)}
    return {name: proxy for name, proxy in tradeoff.proxies.items() if name in used}


def _landscape(sweep: Sweep, spec: LandscapeSpec) -> Any:
    record = sweep.store.get(LANDSCAPE, spec.key)
    return json.loads(record.path(LANDSCAPE_FILE).read_text()) if record else None


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: an infinite divergence is told as None with a note."""
    infinite = [name for name, v in values.items() if isinstance(v, float) and math.isinf(v)]
    if not infinite:
        return values
    note = "; ".join(filter(None, [values["note"], f"{', '.join(infinite)} infinite"]))
    return values | dict.fromkeys(infinite) | {"note": note}
