"""What a trade-off study is about besides tasks and benchmarks: the aligned model's own alignment
data, what may stand in for it, and the stage that makes the aligned model where there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raycib.config import ModelSpec, TaskSpec
from raycib.config.grid import Variant
from raycib.data.rows import rows_of
from raycib.data.sources import stem
from raycib.errors import UserError
from raycib.methods.case1 import Case1
from raycib.runtime.row_sets import RowSets
from raycib.runtime.study import Given, Inputs, aligning
from raycib.runtime.sweep_config import SweepConfig

ORIGINAL = "original data"
"""What the alignment data itself is called among the proxies."""
GAP_ROWS = 400
"""Rows of a task, and of alignment data of one's own, that a gap is measured on."""


@dataclass(frozen=True, kw_only=True)
class TradeoffInputs(Inputs):
    """Resolved and fingerprinted."""

    alignment: TaskSpec
    held_out: str
    """Source of the rows that the safety alignment gap is measured on."""
    proxies: dict[str, TaskSpec]
    """Safety data for Case I, by name; the original alignment data first."""


def inputs_of(setup: SweepConfig) -> TradeoffInputs:
    """Those of a sweep that is a trade-off study; TypeError for another."""
    if not isinstance(setup.inputs, TradeoffInputs):
        raise TypeError(f"a {setup.study.name} study has no alignment data; give Tradeoff()")
    return setup.inputs


def case1_variants(
    setup: SweepConfig, default: Sequence[float], proxies: int | None = None
) -> list[Variant]:
    """Case I at each strength asked for, with each of the proxies or the first few: the original
    alignment data comes first."""
    return [
        Variant(setup.method(Case1(lam=lam, safety=rows)), f"Case I, {name}")
        for name, rows in list(inputs_of(setup).proxies.items())[:proxies]
        for lam in setup.strengths("case1", default)
    ]


def resolve_inputs(
    given: Given, model: ModelSpec, tasks: Mapping[str, TaskSpec], sets: RowSets, align: bool
) -> TradeoffInputs:
    """Those that are given; `model` is the base that is to be aligned (`align`), or the aligned
    one. Raises `UserError` for what is missing or makes no sense."""
    options, chosen = given.options, given.preset
    own = given.own_data or options.model
    of_preset = align and options.base is None  # so are the rows that it is aligned on
    source = options.alignment or (None if own and not of_preset else chosen.alignment)
    if source is None:
        raise UserError(
            "the safety alignment gap is measured on the data that the model was aligned on: give "
            "them with --alignment (prompts with the answers to keep)"
        )
    alignment = sets.task(ORIGINAL, source)
    other = source != chosen.alignment
    proxies = {ORIGINAL: alignment}
    if options.safety:
        name = stem(options.safety)
        proxies[name] = sets.task(name, options.safety)
    elif not other:
        proxies |= {name: sets.task(name, where) for name, where in chosen.proxies.items()}
    first, *others = tasks.values()
    for proxy in proxies.values():
        _refuse_same_rows(first, proxy)
    for task in others:  # which no other proxy is tried on
        _refuse_same_rows(task, alignment)
    held_out = f"{source}#first-{GAP_ROWS}"
    if not other and chosen.alignment_held_out:
        held_out = chosen.alignment_held_out
    return TradeoffInputs(
        alignment_stage=aligning(given, model, alignment) if align else None,
        alignment=alignment,
        held_out=held_out,
        proxies=proxies,
    )


def _refuse_same_rows(task: TaskSpec, proxy: TaskSpec) -> None:
    """A task whose rows are all safety rows has nothing to trade."""
    if set(rows_of(task)) <= set(rows_of(proxy)):
        raise UserError(
            f"all {task.num_rows} rows of the task {task.name!r} ({task.source}) are also in the "
            f"safety data {proxy.name!r} ({proxy.source}): both losses would be one; give other "
            "rows for one of the two"
        )
