"""A group from its stages to their adapters: load, resume, train, check, commit."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch

from raycib.config import Feature, ModelSpec, Precision, RowsSpec, StageSpec, TaskSpec
from raycib.config.plan import AdapterGroup
from raycib.data.chat import Encoded
from raycib.data.lengths import examples_of
from raycib.errors import UserError
from raycib.hooks import AdapterContext, Hooks
from raycib.model_files.adapter_targets import check_targets
from raycib.models import load_model, load_tokenizer
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.reference import ReferenceCache, compute_cache, load_cache, missing_readings
from raycib.objectives import Sum
from raycib.objectives.cross_entropy import CrossEntropy
from raycib.provenance import versions
from raycib.randomness import generator
from raycib.store import Record, Store
from raycib.store.kinds import HISTORY_FILE, STAGES
from raycib.training.batches import BatchSampler
from raycib.training.checkpoints import Checkpoints
from raycib.training.loop import train
from raycib.training.memory import peak_bytes
from raycib.training.points import Points
from raycib.training.slot import Slot
from raycib.training.strategies import Strategy
from raycib.training.workers import Workers

Progress = Callable[[Sequence[Slot]], None]


class Leaving(Exception):
    """The machine is about to go. A checkpoint of the last step is stored, for another machine."""


@dataclass
class Loaded:
    """A base model in memory with a slot for every stage of a group."""

    model: ModelSpec
    adapters: AdapterSlots
    tokenizer: Any
    device: torch.device
    caches: WeakValueDictionary[tuple[Any, ...], ReferenceCache] = field(
        default_factory=WeakValueDictionary
    )
    """References that some slot holds, by what was read of which rows: slots share them."""
    _encoded: dict[str, list[Encoded]] = field(default_factory=dict)

    def encode(self, spec: TaskSpec | RowsSpec) -> list[Encoded]:
        """The rows of a task or benchmark as tokens; slots with the same rows share them."""
        if spec.key not in self._encoded:
            rows = examples_of(self.tokenizer, spec)
            embeddings: Any = self.adapters.model.get_input_embeddings()
            size = embeddings.num_embeddings
            for number, row in enumerate(rows):
                if (largest := max(row.prompt + row.response)) >= size:
                    raise UserError(
                        f"row {number} of {spec.name!r} has the token "
                        f"{self.tokenizer.convert_ids_to_tokens(largest)!r} (id {largest}), but "
                        f"the model has embeddings for {size}; is it another model's tokenizer?"
                    )
            self._encoded[spec.key] = rows
        return self._encoded[spec.key]


def load(
    stages: Sequence[StageSpec],
    device: torch.device,
    attention: str | None = None,
    strategy: Strategy | None = None,
) -> Loaded:
    """The base that `stages` share, with one slot each, in their order; a stage that trains all of
    its weights has it for itself."""
    return open_slots(
        stages[0].model, shapes_of(stages), device, attention,
        strategy=strategy, precision=stages[0].trainer.precision,
    )  # fmt: skip


def shapes_of(stages: Sequence[StageSpec]) -> list[LoRAShape]:
    """The slots of a group; none for a stage that trains all weights."""
    shapes = [LoRAShape(s.lora.rank, s.lora.alpha, s.lora.targets) for s in stages if s.lora]
    if len(shapes) < len(stages) and (shapes or len(stages) > 1):
        raise ValueError("stages that train all weights cannot share a group")
    return shapes


def open_slots(
    model: ModelSpec,
    shapes: Sequence[LoRAShape],
    device: torch.device,
    attention: str | None = None,
    before: Loaded | None = None,
    strategy: Strategy | None = None,
    precision: Precision = "float32",
) -> Loaded:
    """A base with slots of these `shapes`, or to train itself where there are none, in `precision`.
    `before` has the same base and is not used any more: what is in memory is taken over, its slots
    are gone. Without a `strategy` it is whole on `device`."""
    for targets in {shape.targets for shape in shapes}:
        check_targets(model.source, targets)
    if before is not None:
        before.adapters.remove()
        return replace(before, adapters=AdapterSlots(before.adapters.model, shapes))
    lies = strategy or Strategy(Workers(), device)
    place = lies.place if shapes else partial(lies.place_whole, precision=precision)
    base = load_model(model, device, attention, place)
    tokenizer = load_tokenizer(model.source, model.template)
    adapters = AdapterSlots(base, shapes) if shapes else lies.whole(base, precision)
    return Loaded(model, adapters, tokenizer, device)


def train_group(
    group: AdapterGroup,
    loaded: Loaded,
    store: Store,
    workers: Workers,
    micro_batch_size: int,
    checkpoint_every: int,
    progress: Progress = lambda slots: None,
    micro_batch_tokens: int | None = None,
    leaving: Callable[[], bool] = lambda: False,
) -> dict[str, str]:
    """Train the stages of `group` that the store lacks and commit their adapters; slots whose
    stage is done get the stored adapter. Returns why each failed stage failed, by key. A stage
    that lacks points of its training is trained, or trained once more.

    Every `checkpoint_every` optimiser steps, and at the last one, the whole group is saved in one
    record, so a killed group resumes with all its slots at the same step, as it was. Where a worker
    is `leaving` it is saved after that very step, and `Leaving` is raised.
    """
    began = time.monotonic()
    todo: list[Slot] = []
    failed: dict[str, str] = {}
    stored: dict[str, Record] = {}
    points = Points(group, loaded.adapters, store, workers)
    for index, job in enumerate(group.jobs):
        done = store.get(STAGES, job.stage.key)
        if done is not None and not points.of(job.stage.key):
            loaded.adapters.take_back(index, done.folder)  # only to be measured
        else:
            stored |= {job.stage.key: done} if done else {}
            try:
                todo.append(open_slot(index, job.stage, loaded, store))
            except UserError as error:  # a stage's own trouble: the others go on
                failed[job.stage.key] = str(error)
    checkpoints = Checkpoints(group, store, workers, loaded.adapters.in_parts)
    checkpoints.resume(todo, points.first(todo))
    saved = max((slot.step for slot in todo), default=0)

    def after_step(moved: Sequence[Slot]) -> None:
        nonlocal saved
        progress(todo)
        points.keep(moved)
        step = max(slot.step for slot in moved)
        finished = not any(slot.active for slot in todo)
        leaves = any(workers.gather(leaving()))
        if step > saved and (finished or leaves or step % checkpoint_every == 0):
            checkpoints.save(todo, step)
            saved = step
        if leaves and not finished:
            raise Leaving(f"{group.name} was saved after step {step}: this machine is to go")

    train(loaded.adapters, todo, workers, micro_batch_size, after_step, micro_batch_tokens)
    for slot in todo:
        said = [slot.failed, *workers.gather(validate(slot))]
        slot.failed = next(filter(None, said), None)
        if slot.failed is None:
            loaded.adapters.gather()
            if workers.rank == 0:
                if done := stored.get(slot.stage.key):
                    points.ended_as(slot, done)
                commit(slot, loaded.adapters, store, workers, time.monotonic() - began)
    if workers.rank == 0:
        checkpoints.discard()
    return failed | {slot.stage.key: slot.failed for slot in todo if slot.failed is not None}


def open_slot(
    index: int, stage: StageSpec, loaded: Loaded, store: Store, cached: bool = True
) -> Slot:
    """The slot of a stage before its first step; without `cached`, references are live."""
    adapters = loaded.adapters
    spec = stage.method_in_effect
    if stage.parent is None or stage.fresh:
        adapters.initialise(index, generator(stage.seed, "init"))
    if stage.parent is not None:
        parent = store.get(STAGES, stage.parent.key)
        if parent is None:
            raise UserError(
                f"stage {stage.short}: its parent {stage.parent.short} is missing; it failed, or "
                "was never trained"
            )
        (adapters.freeze if stage.fresh else adapters.load)(index, parent.folder)
    hooks: Hooks = spec.build() or Hooks()
    context = AdapterContext(adapters, index, stage, store, loaded.encode)
    if hooks.start is not None:
        hooks.start(context)
    objective = hooks.objective or CrossEntropy()
    if hooks.penalty is not None:
        objective = Sum([objective, hooks.penalty(context)])
    safety = spec.safety_rows
    cache = safety_bank = auxiliary = None
    if cached and spec.features:
        cache = ensure_cache(loaded, store, stage.model, stage.task, spec.features)
    rows = hooks.rows(
        loaded.encode(stage.task), loaded.encode(safety) if safety else [], stage.seed
    )
    if hooks.auxiliary is not None and safety is not None:
        if cached and spec.safety_features:
            safety_bank = ensure_cache(loaded, store, stage.model, safety, spec.safety_features)
        data = loaded.encode(safety)[: hooks.auxiliary.at_most]
        if hooks.auxiliary.prompts_only:
            data = [Encoded(one.prompt, ()) for one in data]
        size = hooks.auxiliary.per_step
        auxiliary = BatchSampler(data, safety_bank, stage.seed, size, "safety order")
    task = BatchSampler(rows, cache, stage.seed, stage.trainer.batch_size)
    objective.to(loaded.device)
    parameters, trained = adapters.parameters_of(index), adapters.trained(index)
    return Slot(index, stage, hooks, objective, parameters, trained, task, auxiliary)


def ensure_cache(
    loaded: Loaded,
    store: Store,
    model: ModelSpec,
    rows: TaskSpec | RowsSpec,
    features: Sequence[Feature],
) -> ReferenceCache:
    """The stored readings of `rows`, computed where the store lacks them."""
    where = (rows.rows, rows.max_length)
    known = (store.root, model.key, *where, tuple(features))
    if (held := loaded.caches.get(known)) is not None:
        return held
    if missing := missing_readings(store, model, *where, features):
        compute_cache(store, loaded.adapters, model, loaded.encode(rows), *where, missing)
    cache = load_cache(store, model, *where, features, loaded.device)
    if cache is None:
        raise RuntimeError(f"the references of {rows.name!r} vanished from the store")
    loaded.caches[known] = cache
    return cache


def validate(slot: Slot) -> str | None:
    """Why a trained slot must not be stored, or None: a store never learns what is not so."""
    if slot.step != slot.stage.steps:
        return f"took {slot.step} of {slot.stage.steps} optimiser steps"
    if not slot.gradient_seen and slot.stage.steps:
        return "no gradient ever reached the adapter"
    for name, parameter in slot.parameters.items():
        if not torch.isfinite(parameter).all():
            return f"{name} is not finite"
    if not all(math.isfinite(v) for entry in slot.history for v in entry.values()):
        return "a loss in the history is not finite"
    return None


def commit(
    slot: Slot, adapters: AdapterSlots, store: Store, workers: Workers, seconds: float = 0.0
) -> Record:
    """The slot's adapter and history, for good; its group took so many `seconds`."""

    def write(folder: Path) -> None:
        adapters.export(slot.index, folder, slot.stage.model.source)
        (folder / HISTORY_FILE).write_text(json.dumps(slot.history))

    last = slot.history[-1] if slot.history else None
    about = {
        "spec": slot.stage.model_dump(mode="json"),
        "steps": slot.step,
        "rows": len(slot.task.data) if slot.stage.steps else 0,
        "last": last,
        "tokens": dict(slot.tokens),
        "peak_bytes": peak_bytes(adapters.model.device),
        "workers": workers.size,
        "seconds": round(seconds, 3),
        "versions": versions(),
    }
    return store.put(STAGES, slot.stage.key, write, about)
