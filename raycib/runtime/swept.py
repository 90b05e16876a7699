"""`--methods` and `--set` against the sweep itself: a method that is asked for has cells, and what
a sweep varies is not a person's to fix.

Found by making the sweep's cells with and without each change, so that a new sweep needs no list.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from raycib.config import Method, RunSpec, Spec
from raycib.config.menu import menu
from raycib.errors import UserError
from raycib.runtime.overrides import ALIGNMENT, EXECUTION, changed
from raycib.runtime.sweep_config import SweepConfig

Cells = Callable[[SweepConfig], Sequence[RunSpec]]


def refuse_missing(setup: SweepConfig, runs: Iterable[RunSpec]) -> None:
    """`UserError` for a method that a person names and no cell has."""
    if setup.options.methods is None:
        return
    there = {
        method.kind
        for run in runs
        for stage in run.stages
        for method in (stage.method, stage.method_in_effect)
        # One about stacked adapters with none below it is plain LoRA at any strength.
        if method.is_plain or method == stage.method_in_effect
    }
    for kind in setup.wanted:
        asked = [setup.at(kind, strength) for strength in setup.strengths(kind, ())]
        if kind in there or ("lora" in there and any(one and one.is_plain for one in asked)):
            continue
        mend = "leave it out, or take method_comparison"
        if lacking := setup.lacking(kind):
            mend = f"it needs {' and '.join(lacking)}"
        elif kind == "lora":
            mend = "with --strengths 0 a method of the sweep's own is plain LoRA"
        elif menu()[kind].stacked:
            mend = "it builds on an earlier adapter: take task_orders or method_comparison"
        raise UserError(f"--methods: no cell of this sweep has {kind}; {mend}")


def refuse_swept(cells: Cells, setup: SweepConfig, runs: Sequence[RunSpec]) -> None:
    """`UserError` for a change that no cell uses, that sets a strength, or that some cell or the
    difference of some cells would lose; `runs` are the cells with all changes."""
    for part, overrides in setup.overrides.items():
        if part in (EXECUTION, ALIGNMENT):  # no cell has any of it
            continue
        for name, value in overrides.items():
            before = [_part(run, part) for run in cells(setup.without(part, name))]
            after = [_part(run, part) for run in runs]
            _compare(f"{part}.{name}", value, before, after)


def _compare(
    path: str, value: Any, before: Sequence[Spec | None], after: Sequence[Spec | None]
) -> None:
    """Of one change: the specs that it is about in each cell, without it and with it."""
    part, _, name = path.partition(".")
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and b is not None]
    if not pairs:
        raise UserError(f"--set {path}: no cell of this sweep uses {part}; leave it out")
    wanted = changed(part, pairs[0][1], {name: value})
    if isinstance(wanted, Method) and name in _strength_fields(wanted):
        raise UserError(
            f"--set {path}: the sweep sets it itself in every cell, as the strength of {part}; "
            f"give --strengths {wanted.strength:g}"
        )
    old, new = ([getattr(spec, name) for spec in side] for side in zip(*pairs, strict=True))
    given = getattr(wanted, name)
    if old == new and given in new:
        return  # what the sweep has anyway
    if old == new:
        raise UserError(f"--set {path}: the sweep sets it itself in every cell; leave it out")
    left = [b for a, b in zip(old, new, strict=True) if a == b != given]
    if left or len(set(new)) < len(set(old)):
        shown = ", ".join(str(v) for v in dict.fromkeys(old))
        raise UserError(f"--set {path}: the sweep varies it itself ({shown}); leave it out")


def _part(run: RunSpec, part: str) -> Spec | None:
    """What a change of `part` is about in a cell: its last stage's settings, or its method."""
    if part not in menu() or part == "lora":  # `lora` is the adapter's shape
        return getattr(run.final, part)
    methods = [run.method, *(stage.method for stage in reversed(run.stages))]
    return next((method for method in methods if method.kind == part), None)


def _strength_fields(method: Method) -> set[str]:
    """The fields that a strength sets."""
    kind = type(method)
    needs = {n: getattr(method, n) for n, f in kind.model_fields.items() if f.is_required()}
    return kind.at(method.strength, **needs).model_fields_set - needs.keys()


def equal_cells(runs: Sequence[RunSpec]) -> str | None:
    """Cells that are one training under several names, in a line; None where there are none."""
    groups: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        method = run.compared or run.final.method
        name = f"{run.label or method.kind} {method.strength:g} seed {run.final.seed}"
        groups.setdefault((run.final.key, run.evals.key), []).append(name)
    same = [group for group in groups.values() if len(group) > 1]
    if not same:
        return None
    shown = "; ".join(" = ".join(group[:4]) + " = ..." * (len(group) > 4) for group in same[:2])
    return f"{len(runs)} cells are {len(groups)} different ones: {shown}" + "; ..." * (
        len(same) > 2
    )
