"""Runs to work: the unique stages of a grid, in levels, grouped into groups.

Groups are drawn from the whole grid, finished stages included, and only then thinned: a grid that
was interrupted is packed as it was before.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, computed_field, model_validator

from raycib.config import MADE, EvalSpec, RunSpec, StageSpec, digest
from raycib.config.menu import from_source
from raycib.config.method import Source

MOST_SLOTS = 32
"""Of an automatic group. Step time stops falling long before it; what more slots still save is the
start of another process."""


class Job(BaseModel, frozen=True):
    """One stage and what is measured on its adapter."""

    stage: StageSpec
    evals: tuple[EvalSpec, ...]
    points: dict[int, str] = {}
    """Keys of its adapter in the middle of its training, which is kept, by the steps."""


class AdapterGroup(BaseModel, frozen=True):
    """Stages trained together on one copy of the frozen base; one Ray Tune trial."""

    name: str
    """Deterministic: a hash of the keys of all its stages, finished ones included, so that an
    interrupted group finds its own checkpoint."""
    jobs: tuple[Job, ...]
    """The unfinished ones."""

    @property
    def said(self) -> str:
        """What it holds, as people name it: "LoRA; CIB 1, 5; seeds 0, 1"; the tasks where there are
        several."""
        stages = [job.stage for job in self.jobs]
        strengths: dict[str, dict[str, None]] = {}
        for stage in stages:
            method = stage.method_in_effect
            name = method.about.name if stage.lora else f"all weights, {method.about.name}"
            strengths.setdefault(name, {})
            if not method.is_plain:
                strengths[name][f"{method.strength:g}"] = None
        parts = [f"{name} {', '.join(values)}".strip() for name, values in strengths.items()]
        tasks = list(dict.fromkeys(stage.task.name for stage in stages))
        seeds = sorted({stage.seed for stage in stages})
        numbers = ", ".join(map(str, seeds))
        parts += [", ".join(tasks)] * (len(tasks) > 1)
        return "; ".join([*parts, f"seed{'s' * (len(seeds) > 1)} {numbers}"])

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

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process as JSON, with the code of its methods."""
        return AdapterGroup.model_validate_json, (self.model_dump_json(),)

    @model_validator(mode="before")
    @classmethod
    def _with_their_code(cls, given: Any) -> Any:
        """A group comes from the driver, so its code is the person's own; a store's is never
        run."""
        given = dict(given)
        for source in given.pop("sources", ()):
            from_source(Source(*source))
        return given


class Plan(BaseModel, frozen=True):
    """The work a grid still needs, level after level."""

    levels: tuple[tuple[AdapterGroup, ...], ...]
    """A stage's parent is in an earlier level. Groups hold unfinished stages only."""
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
    groups_at_once: int,
    group_size: int | None = None,
    most_slots: int | None = None,
    kept: Callable[[str], bool] = lambda point: False,
) -> Plan:
    """What `runs` still need.

    A stage is work if it is not `trained`, or not `measured` on every evaluation asked of it, or
    if some point of its training that is asked for was not `kept`.
    `group_size` slots a group; None spreads a level evenly over the `groups_at_once` groups that
    can run side by side, with at most `most_slots` each
    (`MOST_SLOTS` where that is None).
    """
    stages: dict[str, StageSpec] = {}
    evals: dict[str, dict[str, EvalSpec]] = defaultdict(dict)
    points: dict[str, dict[int, str]] = defaultdict(dict)
    asked = 0
    for run in runs:
        for stage in run.stages:
            asked += 1
            stages.setdefault(stage.key, stage)
        for stage in run.adapters:  # of a model that is made, what is asked is its own cells' part
            evals[stage.key][run.evals.key] = run.evals
        points[run.final.key] |= run.points
    levels: dict[int, list[StageSpec]] = defaultdict(list)
    for stage in stages.values():
        levels[_depth(stage, stages)].append(stage)
    planned = []
    for depth in sorted(levels):
        groups = []
        for group in _groups(levels[depth], groups_at_once, group_size, most_slots or MOST_SLOTS):
            jobs = [
                Job(stage=s, evals=tuple(evals[s.key].values()), points=points[s.key])
                for s in group
            ]
            todo = [
                job
                for job in jobs
                if not trained(job.stage)
                or not all(measured(job.stage, e) for e in job.evals)
                or not all(map(kept, job.points.values()))
            ]
            if todo:
                name = "pack-" + digest([stage.key for stage in group])[:12]
                groups.append(AdapterGroup(name=name, jobs=tuple(todo)))
        if groups:
            planned.append(tuple(groups))
    return Plan(
        levels=tuple(planned),
        stages=len(stages),
        asked=asked,
        reused=sum(trained(stage) for stage in stages.values()),
    )


def waits(level: Sequence[AdapterGroup]) -> list[str]:
    """Why stages of a level cannot share groups with the ones before it; every other two stages of
    one base model can."""
    reasons = {}
    for job in (job for group in level for job in group.jobs):
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
    alignment_stage = stages.get(stage.model.weights)
    return 0 if alignment_stage is None else 1 + _depth(alignment_stage, stages)


def _groups(
    stages: Sequence[StageSpec], groups_at_once: int, group_size: int | None, most: int
) -> list[list[StageSpec]]:
    """Stages that can share a base, dealt into groups of nearly equal size."""
    by_base: dict[str, list[StageSpec]] = defaultdict(list)
    for stage in stages:
        # One that trains all weights has a copy of the base for itself.
        by_base[stage.model.key if stage.lora else stage.key].append(stage)
    groups = []
    for same in by_base.values():
        if group_size:
            count = -(-len(same) // group_size)
        else:  # as many groups in every round as run side by side, so that none runs alone
            at_once = max(1, groups_at_once)
            rounds = -(-len(same) // (most * at_once))
            count = min(len(same), rounds * at_once)
        groups += [same[start::count] for start in range(count)]
    return groups
