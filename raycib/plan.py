"""Runs to work: the unique stages of a grid, in waves, grouped into packs.

Packs are drawn from the whole grid, finished stages included, and only then thinned: a grid that
was interrupted is packed as it was before.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, computed_field, model_validator

from raycib.spec import MADE, EvalSpec, RunSpec, StageSpec, digest
from raycib.spec.menu import from_source
from raycib.spec.method import Source

MOST_LANES = 32
"""Of an automatic pack. Step time stops falling long before it; what more lanes still save is the
start of another process."""


class Job(BaseModel):
    """One stage and what is measured on its adapter."""

    model_config = ConfigDict(frozen=True)
    stage: StageSpec
    evals: tuple[EvalSpec, ...]


class Pack(BaseModel):
    """Stages trained together on one copy of the frozen base; one Ray Tune trial."""

    model_config = ConfigDict(frozen=True)
    name: str
    """Deterministic: a hash of the keys of all its stages, finished ones included, so that an
    interrupted pack finds its own checkpoint."""
    jobs: tuple[Job, ...]
    """The unfinished ones."""

    @computed_field
    @property
    def sources(self) -> tuple[Source, ...]:
        """The code of methods that are not raycib's own: a worker may be elsewhere."""
        found: dict[Source, None] = {}
        for job in self.jobs:
            stage: StageSpec | None = job.stage
            while stage is not None:
                if stage.method.source:
                    found[stage.method.source] = None
                stage = stage.parent
        return tuple(found)

    @model_validator(mode="before")
    @classmethod
    def _with_their_code(cls, given: Any) -> Any:
        """A pack comes from the driver, so its code is the person's own; a store's is never run."""
        given = dict(given)
        for source in given.pop("sources", ()):
            from_source(Source(*source))
        return given


class Plan(BaseModel):
    """The work a grid still needs, wave after wave."""

    model_config = ConfigDict(frozen=True)
    waves: tuple[tuple[Pack, ...], ...]
    """A stage's parent is in an earlier wave. Packs hold unfinished stages only."""
    stages: int
    """Unique stages of the grid."""
    asked: int
    """Stages the runs ask for, equal ones counted each time."""
    reused: int
    """Unique stages already in the store."""

    @property
    def to_train(self) -> int:
        """Unique stages without an adapter yet."""
        return self.stages - self.reused

    @property
    def shared(self) -> int:
        """Trainings saved because equal stages are trained once."""
        return self.asked - self.stages


def make_plan(
    runs: Sequence[RunSpec],
    trained: Callable[[StageSpec], bool],
    measured: Callable[[StageSpec, EvalSpec], bool],
    packs_at_once: int,
    pack_size: int | None = None,
) -> Plan:
    """What `runs` still need.

    A stage is work if it is not `trained`, or not `measured` on every evaluation asked of it.
    `pack_size` lanes a pack; None spreads a wave evenly over the `packs_at_once` packs that can
    run side by side, with at most `MOST_LANES` each.
    """
    stages: dict[str, StageSpec] = {}
    evals: dict[str, dict[str, EvalSpec]] = defaultdict(dict)
    asked = 0
    for run in runs:
        for stage in run.stages:
            asked += 1
            stages.setdefault(stage.key, stage)
        for stage in run.adapters:  # of a model that is made, what is asked is its own cells' part
            evals[stage.key][run.evals.key] = run.evals
    waves: dict[int, list[StageSpec]] = defaultdict(list)
    for stage in stages.values():
        waves[_depth(stage, stages)].append(stage)
    planned = []
    for depth in sorted(waves):
        packs = []
        for group in _groups(waves[depth], packs_at_once, pack_size):
            jobs = [Job(stage=s, evals=tuple(evals[s.key].values())) for s in group]
            todo = [
                job
                for job in jobs
                if not trained(job.stage) or not all(measured(job.stage, e) for e in job.evals)
            ]
            if todo:
                name = "pack-" + digest([stage.key for stage in group])[:12]
                packs.append(Pack(name=name, jobs=tuple(todo)))
        if packs:
            planned.append(tuple(packs))
    return Plan(
        waves=tuple(planned),
        stages=len(stages),
        asked=asked,
        reused=sum(trained(stage) for stage in stages.values()),
    )


def waits(wave: Sequence[Pack]) -> list[str]:
    """Why stages of a wave cannot share packs with the ones before it; every other two stages of
    one base model can."""
    reasons = {}
    for job in (job for pack in wave for job in pack.jobs):
        stage, kind = job.stage, job.stage.method_in_effect.kind
        if stage.parent is None:
            if stage.model.source.startswith(MADE):
                reasons["the model that all start from is made first"] = None
            continue
        if stage.method_in_effect.derived:
            why = f"{kind} is derived from its parent's adapter, without training"
        elif stage.fresh:
            why = f"{kind} is trained on top of its parent's frozen adapter"
        else:
            why = f"{kind} goes on from its parent's adapter"
        reasons[why] = None
    return list(reasons)


def _depth(stage: StageSpec, stages: Mapping[str, StageSpec]) -> int:
    """How many stages must come before it: its parents, and what makes its model."""
    if stage.parent is not None:
        return 1 + _depth(stage.parent, stages)
    maker = stages.get(stage.model.weights)
    return 0 if maker is None else 1 + _depth(maker, stages)


def _groups(
    stages: Sequence[StageSpec], packs_at_once: int, pack_size: int | None
) -> list[list[StageSpec]]:
    """Stages that can share a base, dealt into packs of nearly equal size."""
    by_base: dict[str, list[StageSpec]] = defaultdict(list)
    for stage in stages:
        # One that trains all weights has a copy of the base for itself.
        by_base[stage.model.key if stage.lora else stage.key].append(stage)
    groups = []
    for same in by_base.values():
        if pack_size:
            count = -(-len(same) // pack_size)
        else:  # as many packs in every round as run side by side, so that none runs alone
            at_once = max(1, packs_at_once)
            rounds = -(-len(same) // (MOST_LANES * at_once))
            count = min(len(same), rounds * at_once)
        groups += [same[start::count] for start in range(count)]
    return groups
