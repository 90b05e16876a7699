"""A pack from its stages to their adapters: load, resume, train, check, commit."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from raycib.adapter_places import check_targets
from raycib.adapters import LaneAdapters, LoRAShape, WholeModel
from raycib.data.chat import Encoded
from raycib.data.lengths import examples_of
from raycib.errors import UserError
from raycib.hooks import Hooks, Opening
from raycib.models import load_model, load_tokenizer
from raycib.objectives import Sum
from raycib.objectives.cross_entropy import CrossEntropy
from raycib.plan import Pack
from raycib.provenance import versions
from raycib.randomness import generator
from raycib.reference import ReferenceBank, compute_bank, load_bank, missing_readings
from raycib.spec import ModelSpec, Reading, RowsSpec, StageSpec, TaskSpec
from raycib.store import Record, Store
from raycib.store.kinds import CHECKPOINTS, STAGES
from raycib.training.lane import Lane
from raycib.training.loop import train
from raycib.training.stream import Stream
from raycib.training.workers import Workers

HISTORY_FILE = "history.json"

Progress = Callable[[Sequence[Lane]], None]


@dataclass
class Loaded:
    """A base model in memory with a lane for every stage of a pack."""

    adapters: LaneAdapters
    tokenizer: Any
    device: torch.device
    _encoded: dict[str, list[Encoded]] = field(default_factory=dict)

    def encode(self, spec: TaskSpec | RowsSpec) -> list[Encoded]:
        """The rows of a task or benchmark as tokens; lanes with the same rows share them."""
        if spec.key not in self._encoded:
            rows = examples_of(self.tokenizer, spec)
            embeddings: Any = self.adapters.model.get_input_embeddings()
            size = embeddings.weight.shape[0]
            for number, row in enumerate(rows):
                if (largest := max(row.prompt + row.response)) >= size:
                    raise UserError(
                        f"row {number} of {spec.name!r} has the token "
                        f"{self.tokenizer.convert_ids_to_tokens(largest)!r} (id {largest}), but "
                        f"the model has embeddings for {size}; is it another model's tokenizer?"
                    )
            self._encoded[spec.key] = rows
        return self._encoded[spec.key]


def load(stages: Sequence[StageSpec], device: torch.device) -> Loaded:
    """The base that `stages` share, with one lane each, in their order; a stage that trains all of
    its weights has it for itself."""
    spec = stages[0].model
    model, tokenizer = load_model(spec, device), load_tokenizer(spec.source, spec.template)
    for targets in {stage.lora.targets for stage in stages if stage.lora}:
        check_targets(spec.source, targets)
    shapes = [LoRAShape(s.lora.rank, s.lora.alpha, s.lora.targets) for s in stages if s.lora]
    if not shapes and len(stages) == 1:
        return Loaded(WholeModel(model), tokenizer, device)
    if len(shapes) < len(stages):
        raise ValueError("stages that train all weights cannot share a pack")
    return Loaded(LaneAdapters(model, shapes), tokenizer, device)


def train_pack(
    pack: Pack,
    loaded: Loaded,
    store: Store,
    workers: Workers,
    micro_batch_size: int,
    checkpoint_every: int,
    progress: Progress = lambda lanes: None,
) -> dict[str, str]:
    """Train the stages of `pack` that the store lacks and commit their adapters; lanes whose
    stage is done get the stored adapter. Returns why each failed stage failed, by key.

    Every `checkpoint_every` optimiser steps, and at the last one, the whole pack is saved in one
    record, so a killed pack resumes with all its lanes at the same step, as it was.
    """
    todo: list[Lane] = []
    failed: dict[str, str] = {}
    for index, job in enumerate(pack.jobs):
        done = store.get(STAGES, job.stage.key)
        if done is not None:
            loaded.adapters.freeze(index, done.folder)  # of any rank, only to be measured
        else:
            try:
                todo.append(open_lane(index, job.stage, loaded, store))
            except UserError as error:  # a stage's own trouble: the others go on
                failed[job.stage.key] = str(error)
    _resume(pack, todo, store)
    saved = max((lane.step for lane in todo), default=0)

    def after_step(moved: Sequence[Lane]) -> None:
        nonlocal saved
        progress(todo)
        step = max(lane.step for lane in moved)
        finished = not any(lane.active for lane in todo)
        if workers.rank == 0 and step > saved and (finished or step % checkpoint_every == 0):
            _save(pack, todo, store, step)
            saved = step

    train(loaded.adapters, todo, workers, micro_batch_size, after_step)
    if workers.rank == 0:
        for lane in todo:
            lane.failed = lane.failed or nonsense(lane)
            if lane.failed is None:
                commit(lane, loaded.adapters, store, workers)
        for key in _checkpoints(pack, store).values():
            store.discard(CHECKPOINTS, key)
    return failed | {lane.stage.key: lane.failed for lane in todo if lane.failed is not None}


def open_lane(
    index: int, stage: StageSpec, loaded: Loaded, store: Store, cached: bool = True
) -> Lane:
    """The lane of a stage before its first step; without `cached`, references are live."""
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
    opening = Opening(adapters, index, stage, store, loaded.encode)
    if hooks.start is not None:
        hooks.start(opening)
    objective = hooks.objective or CrossEntropy()
    if hooks.penalty is not None:
        objective = Sum([objective, hooks.penalty(opening)])
    safety = spec.safety_rows
    bank = safety_bank = beside = None
    if cached and spec.readings:
        bank = ensure_bank(loaded, store, stage.model, stage.task, spec.readings)
    rows = hooks.rows(
        loaded.encode(stage.task), loaded.encode(safety) if safety else [], stage.seed
    )
    if hooks.beside is not None and safety is not None:
        if cached and spec.safety_readings:
            safety_bank = ensure_bank(loaded, store, stage.model, safety, spec.safety_readings)
        data = loaded.encode(safety)[: hooks.beside.at_most]
        if hooks.beside.prompts_only:
            data = [Encoded(one.prompt, ()) for one in data]
        size = hooks.beside.per_step
        beside = Stream(data, safety_bank, stage.seed, size, "safety order")
    task = Stream(rows, bank, stage.seed, stage.trainer.batch_size)
    objective.to(loaded.device)
    return Lane(index, stage, hooks, objective, adapters.parameters_of(index), task, beside)


def ensure_bank(
    loaded: Loaded,
    store: Store,
    model: ModelSpec,
    rows: TaskSpec | RowsSpec,
    readings: Sequence[Reading],
) -> ReferenceBank:
    """The stored readings of `rows`, computed where the store lacks them."""
    where = (rows.rows, rows.max_length)
    if missing := missing_readings(store, model, *where, readings):
        compute_bank(store, loaded.adapters, model, loaded.encode(rows), *where, missing)
    bank = load_bank(store, model, *where, readings, loaded.device)
    if bank is None:
        raise RuntimeError(f"the references of {rows.name!r} vanished from the store")
    return bank


def _checkpoints(pack: Pack, store: Store) -> dict[int, str]:
    """Keys of the pack's checkpoints, by step."""
    prefix = f"{pack.name}-"
    mine = (key for key in store.keys(CHECKPOINTS) if key.startswith(prefix))
    return {int(key.removeprefix(prefix)): key for key in mine}


def _save(pack: Pack, lanes: Sequence[Lane], store: Store, step: int) -> None:
    def write(folder: Path) -> None:
        plain = {}
        for lane in lanes:
            tensors, plain[lane.stage.key] = lane.state()
            save_file(tensors, folder / f"{lane.stage.key}.safetensors")
        (folder / "lanes.json").write_text(json.dumps(plain))

    before = _checkpoints(pack, store).values()
    store.put(CHECKPOINTS, f"{pack.name}-{step:08d}", write, {"step": step})
    for key in before:
        store.discard(CHECKPOINTS, key)


def _resume(pack: Pack, lanes: Sequence[Lane], store: Store) -> None:
    """Bring all `lanes` to the newest whole checkpoint that holds them all, if there is one."""
    for _, key in sorted(_checkpoints(pack, store).items(), reverse=True):
        record = store.get(CHECKPOINTS, key)
        if record is None:
            continue
        plain = json.loads(record.path("lanes.json").read_text())
        if all(lane.stage.key in plain for lane in lanes):
            for lane in lanes:
                tensors = load_file(record.path(f"{lane.stage.key}.safetensors"))
                lane.restore(tensors, plain[lane.stage.key])
            return


def nonsense(lane: Lane) -> str | None:
    """Why a trained lane must not be stored, or None: a store never learns what is not so."""
    if lane.step != lane.stage.steps:
        return f"took {lane.step} of {lane.stage.steps} optimiser steps"
    if not lane.gradient_seen and lane.stage.steps:
        return "no gradient ever reached the adapter"
    for name, parameter in lane.parameters.items():
        if not torch.isfinite(parameter).all():
            return f"{name} is not finite"
    if not all(math.isfinite(v) for entry in lane.history for v in entry.values()):
        return "a loss in the history is not finite"
    return None


def commit(lane: Lane, adapters: LaneAdapters, store: Store, workers: Workers) -> Record:
    """The lane's adapter and history, for good."""

    def write(folder: Path) -> None:
        adapters.export(lane.index, folder, lane.stage.model.source)
        (folder / HISTORY_FILE).write_text(json.dumps(lane.history))

    last = lane.history[-1] if lane.history else None
    about = {
        "spec": lane.stage.model_dump(mode="json"),
        "steps": lane.step,
        "rows": len(lane.task.data) if lane.stage.steps else 0,
        "last": last,
        "workers": workers.size,
        "versions": versions(),
    }
    return store.put(STAGES, lane.stage.key, write, about)
