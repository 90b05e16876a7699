"""The work of a sweep that wants its model in memory, in the pieces that workers take."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raycib.config import EvalSpec, Feature, LoRASpec, ModelSpec, TaskSpec
from raycib.config.plan import AdapterGroup
from raycib.runtime.leases import Task
from raycib.runtime.study import AlignedJob

PREPARE = "prepare"
"""Name of the piece that groups rest on."""


@dataclass(frozen=True)
class Prepare:
    """What groups rest on: references, and the aligned model's own measures."""

    tasks: Sequence[tuple[TaskSpec, tuple[Feature, ...]]]
    """Rows with what is read of them."""
    evals: Sequence[EvalSpec]
    model: ModelSpec
    lora: LoRASpec


@dataclass(frozen=True)
class Jobs:
    """What a study computes once on the aligned model."""

    jobs: Sequence[AlignedJob]


Piece = AdapterGroup | Prepare | Jobs
Pending = Callable[[], Any]
"""Work that has begun; call it to have it done. It may be called again."""


def keys_of(piece: Piece) -> list[str]:
    """Its parts, by the keys that sweeps on one store claim them under."""
    if isinstance(piece, AdapterGroup):
        return [job.stage.key for job in piece.jobs]
    if isinstance(piece, Prepare):
        return [piece.model.key]
    return [job.stored_key for job in piece.jobs]


def part_of(piece: Piece, keys: Collection[str]) -> Piece:
    """What of it has these keys."""
    if isinstance(piece, AdapterGroup):
        jobs = tuple(job for job in piece.jobs if job.stage.key in keys)
        return piece.model_copy(update={"jobs": jobs})
    if isinstance(piece, Prepare):
        return piece
    return Jobs([job for job in piece.jobs if job.stored_key in keys])


def tasks_of(pieces: Mapping[str, Piece]) -> list[Task]:
    """What has to be over before each piece: a model is made before what is done with it, groups
    rest on `PREPARE` where it is a piece, and come after the groups of their parents."""
    groups = [piece for piece in pieces.values() if isinstance(piece, AdapterGroup)]
    home = {job.stage.key: group.name for group in groups for job in group.jobs}
    makers = {g.name for g in groups if all(job.stage.lora is None for job in g.jobs)}
    tasks = []
    for name, piece in pieces.items():
        needs, parents = makers, set[str]()
        if isinstance(piece, AdapterGroup):
            stages = [job.stage for job in piece.jobs]
            parents = {stage.parent.key for stage in stages if stage.parent is not None}
            needs = {home[s.model.weights] for s in stages if s.model.weights in home}
            if name not in makers and PREPARE in pieces:
                needs = needs | {PREPARE}
        after = {home[key] for key in parents & home.keys()}
        tasks.append(Task(name, frozenset(after), frozenset(needs)))
    return tasks
