"""What the Trade-offs paper's theorems need to know of a sweep's data and aligned model, for its
summary: read from the store and the rows, nothing computed on an accelerator here."""

import math
from typing import Any, Literal, NamedTuple

from raycib.config import RowsSpec, TaskSpec
from raycib.evals.scores import Missing, load_values
from raycib.methods.case1 import Case1
from raycib.runtime.sweep import Sweep
from raycib.studies.tradeoff.divergence import entropy, mismatch, overlap
from raycib.studies.tradeoff.inputs import inputs_of
from raycib.studies.tradeoff.jobs import LANDSCAPE_ROWS, AnswerTokens, LandscapeSpec
from raycib.studies.tradeoff.measure import GapSpec, gaps_of, mean_with_error
from raycib.studies.tradeoff.theory import AlignedTask, Landscape, Overlap, Proxy, Slope, Theory


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


def answer_tokens(sweep: Sweep) -> dict[str, AnswerTokens]:
    """Of all rows that a loss of this sweep is a mean over: "open", "proxy:near outputs"."""
    tasks = {run.final.task.name: run.final.task for run in sweep.runs}
    rows = tasks | {f"proxy:{name}": proxy for name, proxy in _proxies(sweep).items()}
    return {name: AnswerTokens(model=sweep.setup.model, rows=one) for name, one in rows.items()}


def theory(sweep: Sweep) -> Theory:
    """The theorems' terms, and whether each is exact or estimated."""
    tradeoff, gaps, proxies = inputs_of(sweep.setup), _gaps(sweep), _proxies(sweep)
    tasks = {run.final.task.name: run.final.task for run in sweep.runs}
    least = entropy(tradeoff.held_out)
    aligned: dict[str, AlignedTask] = {}
    alignment_gap = None
    for task, spec in gaps.items():
        try:
            losses = load_values(sweep.store, sweep.setup.model.key, spec)
        except Missing:
            continue
        nll, floor = mean_with_error(losses["task"]).value, entropy(spec.task.source)
        aligned[task] = AlignedTask(
            capability_nll=nll, capability_gap_exact=None if floor is None else nll - floor
        )
        if least is not None:
            alignment_gap = mean_with_error(losses["alignment"]).value - least
    shapes = {name: spec.found(sweep.store) for name, spec in landscapes(sweep).items()}
    lengths = {name: one.found(sweep.store) for name, one in answer_tokens(sweep).items()}
    original = tradeoff.alignment.source
    return Theory(
        aligned=aligned,
        alignment_gap_exact=alignment_gap,
        answer_tokens={name: mean for name, mean in lengths.items() if mean is not None},
        proxies=[
            Proxy(name=name, rows=proxy.num_rows, **_noted(mismatch(original, proxy.source)))
            for name, proxy in proxies.items()
        ],
        overlaps=[
            Overlap(proxy=name, task=task, **_noted(overlap(proxy.source, rows.source)))
            for name, proxy in proxies.items()
            for task, rows in tasks.items()
        ],
        lipschitz=[Slope(**one) for one in shapes.get("alignment") or ()],
        smoothness=[Landscape(task=task, **shapes[task]) for task in gaps if shapes.get(task)],
    )


def _gaps(sweep: Sweep) -> dict[str, GapSpec]:
    """Rows of the gaps, by task."""
    return {run.final.task.name: gaps_of(run.evals) for run in sweep.runs}


def _proxies(sweep: Sweep) -> dict[str, TaskSpec]:
    """The safety data that a cell of this sweep uses, by name."""
    used = {m.safety.name for run in sweep.runs if isinstance(m := run.method, Case1)}
    return {name: proxy for name, proxy in inputs_of(sweep.setup).proxies.items() if name in used}


def _noted(terms: NamedTuple) -> dict[str, Any]:
    """A term that is infinite is None in the results; a note says so."""
    values = terms._asdict()
    infinite = [name for name, v in values.items() if isinstance(v, float) and math.isinf(v)]
    if infinite:
        said = f"{', '.join(infinite)} infinite"
        values["note"] = "; ".join(filter(None, [values["note"], said]))
    return values
