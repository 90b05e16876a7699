"""Engines and judges side by side: how many, and what they then take; and whether they lie on one
GPU with who trains."""

import math
from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel

from raycib.config.presets import Execution
from raycib.costs.memory import said
from raycib.runtime.capacity import ENGINE, JUDGE, judges_for, replicas
from raycib.runtime.planning.machine import Machine
from raycib.runtime.planning.memory import Group, Memory
from raycib.runtime.planning.work import Work

PARTS = 20
"""A share of a GPU is a whole number of these parts of one."""


class Service(BaseModel, frozen=True):
    """Processes of a kind that work side by side."""

    name: str
    replicas: int
    gpus: float
    """Of all together."""
    hours: float
    """Until all of them are done."""


def engines(group: Group, work: Work) -> int:
    """That will answer."""
    execution = group.sweep.setup.execution
    asked, gpus = execution.engine_replicas, execution.engine_gpus
    return _many(group, asked, gpus, len(work.questioned))


def judges(group: Group, work: Work) -> int:
    """Of ours that will read, one judge's replicas."""
    execution = group.sweep.setup.execution
    asked, gpus = execution.judge_replicas, execution.judge_gpus
    return _many(group, asked, gpus, judges_for(work.judged) if work.guards else 0)


def _many(group: Group, asked: int | None, gpus: float, useful: int) -> int:
    """Beside those who train, nothing is known to be left."""
    idle = [] if group.sweep.setup.execution.judge_starts_early else [group.machine.there]
    return replicas(asked, gpus, idle, useful) if useful else 0


def services(group: Group, work: Work, hours: Mapping[str, float]) -> Iterator[Service]:
    """Those that there are, by the `hours` of one GPU, or core, that each phase takes."""
    execution = group.sweep.setup.execution
    for name, many, gpus, phases in (
        (ENGINE, engines(group, work), execution.engine_gpus, ("answers", "benchmarks in words")),
        (JUDGE, judges(group, work), execution.judge_gpus, ("judging",)),
    ):
        if many:
            whole = sum(hours.get(phase, 0.0) for phase in phases) / (many * max(1.0, gpus))
            yield Service(name=name, replicas=many, gpus=many * gpus, hours=whole)


def on_one_gpu(machine: Machine, execution: Execution, memories: Sequence[Memory]) -> str:
    """How who trains, answers and judges would lie on one GPU, where each was given a whole one;
    "" where there is nothing to say."""
    wholes = execution.gpus_per_worker, execution.engine_gpus, execution.judge_gpus
    of = {one.what: one.total for one in memories}
    trains = max((of[name] for name in of.keys() - {ENGINE, JUDGE}), default=0)
    if machine.gpu is None or {*wholes} != {1} or execution.workers > 1:
        return ""
    if not trains or ENGINE not in of:
        return ""
    room = machine.room_of(1) or 0
    whole = said(trains + of[ENGINE] + of.get(JUDGE, 0))
    worker, judge = (math.ceil(PARTS * size / room) for size in (trains, of.get(JUDGE, 0)))
    engine = PARTS - worker - judge  # what is left holds keys and values
    if of[ENGINE] > room * engine / PARTS:
        return f"who trains, answers and judges take turns: together {whole} of {said(room)}"
    shares = {"gpus_per_worker": worker, "engine_gpus": engine, "judge_gpus": judge}
    changes = [f"execution.{name}={share / PARTS:g}" for name, share in shares.items()]
    told = " ".join(f"--set {one}" for one in (*changes, "execution.judge_starts_early=true"))
    return f"who trains, answers and judges fit side by side: together {whole}; {told}"
