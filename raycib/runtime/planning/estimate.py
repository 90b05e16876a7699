"""A plan in numbers: stages, tokens, memory, GPU hours, dollars, disk, of what is left to do."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from raycib.config import RowsSpec, TaskSpec
from raycib.config.plan import Plan
from raycib.costs import flops
from raycib.costs.gpus import ANSWERING, PRICED, UTILISATION
from raycib.costs.memory import weight_bytes
from raycib.costs.sizes import BYTES
from raycib.data.lengths import Length
from raycib.runtime.planning.fit import refuse_split, refuse_unfit
from raycib.runtime.planning.machine import Machine
from raycib.runtime.planning.memory import (
    Group,
    Memory,
    adapter_of,
    engine_memory,
    judge_memory,
)
from raycib.runtime.planning.work import Work
from raycib.runtime.sweep import Sweep

CPU_PEAK = 68e9
"""FLOP/s of one core in float32: large products on an AVX2 server, measured."""
POLICY = 250
"""Tokens that a judge reads around a conversation; assumed: Llama-Guard-3's with its categories."""
LOADING = 1e9
"""Bytes a second at which weights are read and hashed; assumed."""
ANSWER_BYTES = 12
"""Of a token of a stored answer: its id and its text."""


class Quantiles(BaseModel):
    """Lengths of a set of rows, in tokens."""

    model_config = ConfigDict(frozen=True)
    name: str
    rows: int
    left_out: int
    cut: int
    tenth: int
    median: int
    nine_tenths: int
    longest: int


class Phase(BaseModel):
    """One kind of work."""

    model_config = ConfigDict(frozen=True)
    name: str
    amount: str
    flops: float
    hours: float
    """Of one GPU, or of one core."""


class Estimate(BaseModel):
    """The plan's numbers; bytes, FLOPs and hours."""

    model_config = ConfigDict(frozen=True)
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
    hours: float
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
    memories = list(_memories(group, work))
    refuse_unfit(memories, machine)
    refuse_split("engine_gpus", sweep.setup.execution.engine_gpus, sizes)
    for _, judge in work.guards:
        refuse_split("judge_gpus", sweep.setup.execution.judge_gpus, judge)
    phases = tuple(_phases(group, work))
    hours = sum(one.hours for one in phases)
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
        phases=phases,
        hours=hours,
        utilisation=UTILISATION,
        price=price,
        dollars=None if price is None else hours * price,
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


def _phases(group: Group, work: Work) -> Iterator[Phase]:
    sweep, sizes = group.sweep, group.sizes
    gpu, dtype = group.machine.gpu, sweep.setup.model.dtype
    peaks = {"bfloat16": gpu.peak, "float32": gpu.float32} if gpu else {}

    def phase(name: str, amount: str, done: Mapping[str, float], utilisation: float) -> Phase:
        """Of FLOPs by the precision that they are `done` in."""
        speeds = {precision: peaks.get(precision, 0.0 if gpu else CPU_PEAK) for precision in done}
        seconds = sum(done[one] / (speed * utilisation) for one, speed in speeds.items() if speed)
        return Phase(name=name, amount=amount, flops=sum(done.values()), hours=seconds / 3600)

    def forward(rows: TaskSpec | RowsSpec) -> float:
        lengths = sweep.setup.sets.used(rows)
        tokens, scored = (sum(o.whole for o in lengths), sum(o.whole - o.prompt for o in lengths))
        return flops.forward(sizes, tokens, sum(one.whole**2 for one in lengths), scored)

    again = sweep.setup.execution.checkpoint_activations
    trained: dict[str, float] = defaultdict(float)
    for stage, tokens, squares, scored, _ in work.stages:
        if stage.lora is None:
            whole = flops.train_all_weights(sizes, tokens.computed, squares, scored)
            trained[stage.trainer.precision] += whole
            continue
        batch = min(stage.trainer.batch_size, stage.task.num_rows)
        more = 1 + stage.method_in_effect.extra_rows(batch) / batch
        trained[dtype] += more * flops.train(
            sizes, adapter_of(stage), tokens.computed, squares, scored, again
        )
    computed = sum(one.tokens.computed for one in work.stages)
    yield phase("training", f"{_many(computed)} tokens", trained, UTILISATION)
    share = work.forwards / max(1, sweep.distinct_examples)
    referred = share * sum(forward(rows) for rows, _ in sweep.references())
    measured = sum(
        forward(rows)
        for model_id in work.questioned
        for one in sweep.asked[model_id].values()
        for rows, _ in one.referred
    )
    told = f"{work.forwards:,} rows of the aligned model, {len(work.questioned)} models measured"
    yield phase("references and measures", told, {dtype: referred + measured}, UTILISATION)
    said = sum(flops.answer(sizes, one.prompts, one.max_tokens) for one in work.asked)
    answers = sum(len(one.prompts) for one in work.asked)
    yield phase("answers", f"{answers:,}, all of the most tokens", {dtype: said}, ANSWERING)
    for name, in_words, utilisation in (
        ("benchmarks by likelihood", False, UTILISATION),
        ("benchmarks in words", True, ANSWERING),
    ):
        if specs := [one for one in sweep.unscored if one.in_words == in_words]:
            passed = sum(
                flops.forward(sizes, one.tokens, one.square_tokens, one.scored) for one in specs
            )
            amount = f"{_many(sum(one.tokens for one in specs))} tokens of lm-eval"
            yield phase(name, amount, {dtype: passed}, utilisation)
    if work.guards:
        read: dict[str, float] = defaultdict(float)
        for profile, judge in work.guards:
            length = _policy(profile) + _conversation(sweep)
            read[judge.dtype] += work.judged * flops.forward(judge, length, length**2, 1)
        count = work.judged * len(work.guards)
        yield phase("judging", f"{count:,} conversations", read, UTILISATION)
    if group.machine.gpu:
        groups = sum(len(level) for level in work.plan.levels)
        model = weight_bytes(sizes, sweep.setup.model.dtype)
        seconds = (groups + 1 + bool(work.questioned)) * model / LOADING
        amount = f"the base, {groups + 1 + bool(work.questioned)} times"
        yield Phase(name="loading", amount=amount, flops=0, hours=seconds / 3600)


def _policy(profile: str) -> int:
    return 0 if profile == "world" else POLICY


def _conversation(sweep: Sweep) -> float:
    """Tokens of a harmful prompt and its answer, at most."""
    harmful = next(iter(sweep.evals.values())).harmful
    prompts = sweep.setup.sets.asked(harmful)
    return sum(prompts) / len(prompts) + harmful.max_tokens


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
        for rows, features in sweep.references()
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
    if machine.gpu and not machine.known:
        yield f"the GPU is an {machine.name} (--gpu names another)"
    if machine.gpu:
        yield (
            f"{UTILISATION:.0%} of its peak in training, references and judging, "
            f"{ANSWERING:.0%} where answers are generated"
        )
    else:
        speed = CPU_PEAK * UTILISATION / 1e9
        yield f"{speed:.0f} GFLOP/s a core, and no time for the start of processes"
    if any(_policy(profile) for profile, _ in work.guards):
        yield f"a judge reads {POLICY} tokens around a conversation"
    if sweep.jobs:
        yield "what the study computes once on the aligned model is not counted"
    if machine.gpu and machine.gpu.price and sweep.setup.options.price_per_hour is None:
        yield f"the price is of {PRICED} (--price-per-hour names another)"


def _many(count: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"
