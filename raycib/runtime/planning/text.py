"""A plan's numbers as lines for a person."""

from collections.abc import Iterator

from raycib.costs.memory import said
from raycib.counting import count
from raycib.runtime.planning.estimate import Estimate
from raycib.runtime.planning.memory import Memory
from raycib.runtime.planning.side_by_side import Service

WIDTH = 14


def lines(plan: Estimate) -> Iterator[str]:
    """One fact a line, its subject first."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in plan.targets.items())
    yield _line("adapters", f"{plan.adapter_parameters:,} weights each, in {kinds}")
    for one in plan.rows:
        lost = f", {one.left_out} left out" * bool(one.left_out) + f", {one.cut} cut" * bool(
            one.cut
        )
        yield _line(
            "tokens a row",
            f"{one.name}: a tenth up to {one.tenth}, half {one.median}, nine tenths "
            f"{one.nine_tenths}, longest {one.longest}; {one.rows:,} rows{lost}",
        )
    if plan.computed_tokens:
        share = plan.useful_tokens / plan.computed_tokens
        padding = f"with padding {plan.computed_tokens:,} ({share:.0%} useful)"
        yield _line(
            "training",
            f"{count(plan.to_train, 'stage')}, {plan.steps:,} steps, {plan.useful_tokens:,} "
            f"tokens; " + ("no padding" if share == 1 else padding),
        )
    yield _line("references", f"{plan.reference_forwards:,} rows go through the aligned model")
    yield _line(
        "answers",
        f"{plan.answers:,} of up to {plan.answer_tokens:,} tokens in all, {plan.judged:,} judged",
    )
    for what, parts in plan.memory.items():
        yield _line("memory", str(Memory(what, parts, plan.room[what])))
    if plan.on_one_gpu:
        yield _line("one GPU", plan.on_one_gpu)
    unit = "core hours" if plan.machine == "CPU" else f"{plan.machine} hours"
    for phase in plan.phases:
        work = f"; {_petas(phase.flops)} PFLOP" if phase.flops else ""
        told = _hours(phase.hours if phase.told else None)
        yield _line(unit, f"{told}  {phase.name}: {phase.amount}{work}")
    if any(one.replicas > 1 for one in plan.services):
        yield _line("side by side", "; ".join(map(_several, plan.services)))
    dollars = ""
    if plan.dollars is not None:
        dollars = f", {plan.dollars:,.2f} dollars at {plan.price:g} an hour"
    yield _line(unit, f"{_hours(plan.hours)}  in all{dollars}")
    stored = ", ".join(f"{name} {said(size)}" for name, size in plan.storage.items() if size)
    yield _line("disk", stored or "nothing")
    for one in plan.assumed:
        yield _line("assumed", one)


def _hours(hours: float | None) -> str:
    return f"{'?':>8}" if hours is None else f"{hours:8.3f}"


def _several(one: Service) -> str:
    on = f" on {one.gpus:g} GPUs" if one.gpus else ""
    return f"{one.name}, {one.replicas} times{on}: {one.hours:.3f} hours"


def _petas(flops: float) -> str:
    return f"{flops / 1e15:,.0f}" if flops >= 1e17 else f"{flops / 1e15:.3g}"


def _line(subject: str, text: str) -> str:
    return f"{subject:{WIDTH}}{text}"
