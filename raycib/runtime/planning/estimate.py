"""A plan in numbers: stages, tokens, memory, GPU hours, dollars, disk, of what is left to do."""

from collections.abc import Iterator, Sequence

from pydantic import BaseModel

from raycib.config.plan import Plan
from raycib.costs.gpus import ANSWERING, PRICED, UTILISATION
from raycib.costs.memory import weight_bytes
from raycib.costs.sizes import BYTES
from raycib.data.lengths import Length
from raycib.runtime.planning.fit import refuse_crowd, refuse_split, refuse_unfit
from raycib.runtime.planning.machine import Machine
from raycib.runtime.planning.memory import Group, Memory, engine_memory, judge_memory
from raycib.runtime.planning.phases import CPU_PEAK, POLICY, Phase, phases, policy
from raycib.runtime.planning.side_by_side import Service, on_one_gpu, services
from raycib.runtime.planning.work import Work
from raycib.runtime.references import references
from raycib.runtime.sweep import Sweep

ANSWER_BYTES = 12
"""Of a token of a stored answer: its id and its text."""


class Quantiles(BaseModel, frozen=True):
    """Lengths of a set of rows, in tokens."""

    name: str
    rows: int
    left_out: int
    cut: int
    tenth: int
    median: int
    nine_tenths: int
    longest: int


class Estimate(BaseModel, frozen=True):
    """The plan's numbers; bytes, FLOPs and hours."""

    machine: str
    assumed: tuple[str, ...]
    """What was not known and taken to be so."""
    stages: int
    reused: int
    to_train: int
    shared: int
    """Trainings saved because equal stages are trained once."""
    groups: tuple[tuple[int, ...], ...]
    """Slots of each group, level by level."""
    steps: int
    """Optimiser steps of all stages together."""
    useful_tokens: int
    computed_tokens: int
    """With padding, of the task's rows in training."""
    reference_forwards: int
    answers: int
    answer_tokens: int
    """At most."""
    judged: int
    targets: dict[str, int]
    """Linear layers that are adapted, by name."""
    adapter_parameters: int
    rows: tuple[Quantiles, ...]
    memory: dict[str, dict[str, int]]
    """By process and part, in bytes."""
    room: dict[str, int | None]
    """That each process may take."""
    phases: tuple[Phase, ...]
    services: tuple[Service, ...]
    """Engines and judges."""
    on_one_gpu: str
    """Whether they lie there with who trains, and how."""
    hours: float | None
    """None where those of some phase are not known."""
    utilisation: float
    price: float | None
    """Dollars an hour."""
    dollars: float | None
    storage: dict[str, int]
    """Bytes that the store grows by."""


def estimate(sweep: Sweep, plan: Plan, machine: Machine) -> Estimate:
    """What `plan` will take on a machine. Raises `UserError` where its engine or its judge does
    not fit there, or cannot be split as is asked."""
    group = Group(sweep, machine)
    work = Work(sweep, plan, group.sizes)
    sizes, lora, options = group.sizes, sweep.setup.lora, sweep.setup.options
    execution = sweep.setup.execution
    refuse_crowd(sweep, machine, bool(work.guards))
    memories = list(_memories(group, work))
    refuse_unfit(memories, machine)
    refuse_split("engine_gpus", execution.engine_gpus, sizes)
    for _, judge in work.guards:
        refuse_split("judge_gpus", execution.judge_gpus, judge)
    found = tuple(phases(group, work))
    hours = sum(one.hours for one in found) if all(one.told for one in found) else None
    price = options.price_per_hour
    if price is None and machine.gpu:
        price = machine.gpu.price
    kinds = [name.rpartition(".")[2] for name in sizes.adapted(lora.targets)]
    return Estimate(
        machine=machine.name,
        assumed=tuple(_assumed(sweep, work, machine)),
        stages=plan.stages,
        reused=plan.reused,
        to_train=plan.to_train,
        shared=plan.shared,
        groups=tuple(tuple(len(one.jobs) for one in level) for level in plan.levels),
        steps=sum(one.stage.steps for one in work.stages),
        useful_tokens=int(sum(one.tokens.useful + one.beside for one in work.stages)),
        computed_tokens=int(sum(one.tokens.computed + one.beside for one in work.stages)),
        reference_forwards=work.forwards,
        answers=sum(len(one.prompts) for one in work.asked),
        answer_tokens=sum(len(one.prompts) * one.max_tokens for one in work.asked),
        judged=work.judged,
        targets={kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        adapter_parameters=sizes.adapter_parameters(lora.rank, lora.targets),
        rows=tuple(_rows(sweep)),
        memory={one.what: dict(one.parts) for one in memories},
        room={one.what: one.room for one in memories},
        phases=found,
        services=tuple(services(group, work, {one.name: one.hours for one in found})),
        on_one_gpu=on_one_gpu(machine, execution, memories),
        hours=hours,
        utilisation=UTILISATION,
        price=price,
        dollars=None if price is None or hours is None else hours * price,
        storage=_storage(group, work),
    )


def _memories(group: Group, work: Work) -> Iterator[Memory]:
    if work.stages:
        yield from group.needs(group.sweep.setup.execution, work.largest_group)
    if work.questioned:
        yield engine_memory(group.sweep, group.sizes, group.machine)
    judges = [judge_memory(group.sweep, sizes, group.machine) for _, sizes in work.guards]
    if judges and work.judged:
        yield max(judges, key=lambda one: one.total)  # one after the other


def _rows(sweep: Sweep) -> Iterator[Quantiles]:
    tasks = {stage.task.key: stage.task for stage in sweep.stages.values()}
    for task in tasks.values():
        lengths = sorted(one.whole for one in sweep.setup.sets.used(task))
        tenth, median, nine = (lengths[int(q * (len(lengths) - 1))] for q in (0.1, 0.5, 0.9))
        yield Quantiles(
            name=task.name, rows=task.num_rows, left_out=len(task.left_out), cut=task.cut,
            tenth=tenth, median=median, nine_tenths=nine, longest=lengths[-1],
        )  # fmt: skip


def _storage(group: Group, work: Work) -> dict[str, int]:
    sweep, sizes, lora = group.sweep, group.sizes, group.sweep.setup.lora
    stages = [one.stage for one in work.stages]
    adapters = sum(
        4 * sizes.adapter_parameters(stage.exported_rank, stage.lora.targets)
        for stage in stages
        if stage.lora
    )
    models = sum(stage.lora is None for stage in stages)
    caches = sum(
        _cache_bytes(sweep.setup.sets.used(rows), feature[0], sizes.width, sweep.setup.model.dtype)
        for rows, features in references(sweep)
        for feature in features
    )
    said = sum(len(one.prompts) * one.max_tokens for one in work.asked)
    own = sizes.adapter_parameters(lora.rank, lora.targets)
    return {
        "adapters": adapters,
        "models": models * weight_bytes(sizes, sweep.setup.model.dtype),
        "caches of references": caches if work.forwards else 0,
        "answers, at most": ANSWER_BYTES * said,
        # Weights and both of Adam's means, in float32.
        "a group's checkpoint, while it is trained": 12 * own * work.largest_group,
    }


def _cache_bytes(rows: Sequence[Length], what: str, width: int, dtype: str) -> int:
    """Of one reading of rows: states of tokens in the model's dtype, all else in float32."""
    scored = sum(one.whole - one.prompt for one in rows)
    match what:
        case "response_nll":
            return 4 * scored
        case "response_states":
            return BYTES[dtype] * scored * width
        case "all_states":
            return BYTES[dtype] * width * sum(one.whole - 1 for one in rows)
    return 4 * width * len(rows)


def _assumed(sweep: Sweep, work: Work, machine: Machine) -> Iterator[str]:
    yield from sweep.setup.reader.assumed
    if any(work.sizes.routed) and work.sizes.chosen is None:
        yield "all experts read each token: config.json does not say how many do"
    if machine.gpu and not machine.known:
        yield f"the GPU is an {machine.name} (--gpu names another)"
    if machine.gpu and not machine.gpu.peak:
        yield f"nothing of the time that an {machine.name} takes: its peak is not known here"
    elif machine.gpu:
        yield (
            f"{UTILISATION:.0%} of its peak in training, references and judging, "
            f"{ANSWERING:.0%} where answers are generated"
        )
    else:
        speed = CPU_PEAK * UTILISATION / 1e9
        yield f"{speed:.0f} GFLOP/s a core, and no time for the start of processes"
    if any(policy(profile) for profile, _ in work.guards):
        yield f"a judge reads {POLICY} tokens around a conversation"
    if sweep.jobs:
        yield "what the study computes once on the aligned model is not counted"
    if machine.gpu and machine.gpu.price and sweep.setup.options.price_per_hour is None:
        yield f"the price is of {PRICED} (--price-per-hour names another)"
