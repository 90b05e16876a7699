"""What runs on the machines with the accelerators: references, packs, answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from raycib.adapters import LaneAdapters, LoRAShape
from raycib.data.chat import Encoded
from raycib.data.chat_format import chat_format
from raycib.evals.answers import generate_answers
from raycib.evals.generate import Engine, Generator
from raycib.evals.representation import measure
from raycib.evals.scores import MEASURES_FILE
from raycib.model_files import verified
from raycib.models import load_model, load_tokenizer
from raycib.orchestration.study import AlignedJob
from raycib.plan import Pack
from raycib.presets import Execution
from raycib.reference import ReferenceBank
from raycib.spec import EvalSpec, LoRASpec, ModelSpec, Reading, RowsSpec, TaskSpec
from raycib.store import Store
from raycib.store.kinds import MEASURES, STAGES
from raycib.training.lane import Lane
from raycib.training.memory import keep_memory
from raycib.training.pack import Loaded, ensure_bank, load, train_pack
from raycib.training.workers import Workers

Readings = tuple[Reading, ...]
Report = Callable[[str, Mapping[str, Any], bool], None]
"""Told how far a pack is: its name, the news, and whether they are its last."""


def device_of(gpus: float) -> torch.device:
    """Where this process computes; on a CPU with one thread."""
    if gpus:
        return torch.device("cuda", torch.cuda.current_device())
    torch.set_num_threads(1)
    return torch.device("cpu")


def prepare(
    store: Store,
    model: ModelSpec,
    tasks: Sequence[tuple[TaskSpec, Readings]],
    evals: Sequence[EvalSpec],
    lora: LoRASpec,
    gpus: float,
) -> None:
    """The aligned model's part, before any training: references of all rows that need them, and
    its own measures (the "before" of every cell)."""
    device = device_of(gpus)
    shape = LoRAShape(1, 1.0, lora.targets)  # a lane of zeros: the aligned model itself
    adapters = LaneAdapters(load_model(model, device), [shape])
    loaded = Loaded(adapters, load_tokenizer(model.source, model.template), device)
    for task, readings in tasks:
        ensure_bank(loaded, store, model, task, readings)
    for one in evals:
        ensure_bank(loaded, store, model, one.held_out, one.readings)
        measure_lanes(loaded, store, model, {0: model.key}, one)


def measure_lanes(
    loaded: Loaded, store: Store, model: ModelSpec, subjects: dict[int, str], evals: EvalSpec
) -> None:
    """Measure lanes (by subject) on held-out rows and store what is new."""

    def ensure(
        kind: str,
        file: str,
        key_of: Callable[[str], str],
        about: BaseModel,
        values_of: Callable[[list[int]], Mapping[int, BaseModel]],
    ) -> None:
        todo = {n: one for n, one in subjects.items() if store.get(kind, key_of(one)) is None}
        for lane, values in values_of(list(todo)).items() if todo else ():
            text, told = values.model_dump_json(indent=1), about.model_dump(mode="json")

            def write(folder: Path, text: str = text) -> None:
                (folder / file).write_text(text)

            store.put(kind, key_of(todo[lane]), write, {"subject": todo[lane], "rows": told})

    def held_out(lanes: list[int]) -> Mapping[int, BaseModel]:
        bank = ensure_bank(loaded, store, model, evals.held_out, evals.readings)
        return measure(loaded.adapters, lanes, loaded.encode(evals.held_out), bank, evals)

    ensure(MEASURES, MEASURES_FILE, evals.measures_key, evals.held_out, held_out)
    for one in evals.measures:
        values_of = partial(one.measure, Models(loaded, store, model))
        ensure(one.folder, one.file, one.stored_key, one, values_of)


@dataclass(frozen=True)
class Models:
    """What a study's measure sees of a pack in memory (`raycib.spec.measure.InMemory`)."""

    loaded: Loaded
    store: Store
    model: ModelSpec

    @property
    def adapters(self) -> LaneAdapters:
        """One lane a model."""
        return self.loaded.adapters

    def encode(self, rows: RowsSpec) -> list[Encoded]:
        """Rows as tokens."""
        return self.loaded.encode(rows)

    def reference(self, rows: RowsSpec, readings: Readings) -> ReferenceBank:
        """The aligned model's readings of rows, from the store or computed."""
        return ensure_bank(self.loaded, self.store, self.model, rows, readings)


def run_jobs(store: Store, jobs: Sequence[AlignedJob], gpus: float) -> None:
    """Compute what a study needs to know of the aligned model."""
    for job in jobs:
        job.run(store, device_of(gpus))


def run_pack(pack: Pack, store: Store, execution: Execution, report: Report) -> dict[str, str]:
    """Train a pack's unfinished stages, then measure all of them. Every worker of the pack calls
    this; returns why each failed stage failed, by key."""
    keep_memory()
    workers = Workers.current()
    loaded = load([job.stage for job in pack.jobs], device_of(execution.gpus_per_worker))

    def progress(lanes: Sequence[Lane]) -> None:
        if workers.rank == 0:
            report(pack.name, _news(lanes), not any(lane.active for lane in lanes))

    failures = train_pack(
        pack, loaded, store, workers, execution.micro_batch_size, execution.checkpoint_every,
        progress,
    )  # fmt: skip
    if workers.rank == 0:
        wanted: dict[str, tuple[EvalSpec, dict[int, str]]] = {}
        for lane, job in enumerate(pack.jobs):
            for evals in job.evals:
                if job.stage.key not in failures:
                    wanted.setdefault(evals.key, (evals, {}))[1][lane] = job.stage.key
        for evals, subjects in wanted.values():
            measure_lanes(loaded, store, pack.jobs[0].stage.model, subjects, evals)
    return failures


def _news(lanes: Sequence[Lane]) -> dict[str, Any]:
    terms: dict[str, list[float]] = {}
    for lane in lanes:
        for name, value in (lane.history[-1] if lane.history else {}).items():
            if name not in ("step", "grad_norm"):
                terms.setdefault(name, []).append(value)
    return {
        "lanes": len(lanes),
        "done": sum(lane.step for lane in lanes),
        "steps": sum(lane.stage.steps for lane in lanes),
        "terms": {name: sum(values) / len(values) for name, values in terms.items()},
    }


def with_vllm(store: Store, model: ModelSpec, rank: int, max_model_len: int) -> "Answering":
    """Answers by vLLM; `rank` is the largest that any adapter has."""
    tokenizer = load_tokenizer(model.source, model.template)
    engine = Generator(
        verified(model),
        max_lora_rank=rank,
        max_model_len=max_model_len,
        dtype=model.dtype,
        stop=[chat_format(tokenizer).end],
    )
    return Answering(store, model, tokenizer, engine)


class Answering:
    """A warm engine of one base model, and the store that its answers go to."""

    def __init__(self, store: Store, model: ModelSpec, tokenizer: Any, engine: Engine) -> None:
        self.store, self.model, self.tokenizer, self.engine = store, model, tokenizer, engine

    def answer(self, subjects: Sequence[str], asked: Sequence[RowsSpec]) -> int:
        """Have models answer, stages by key or the aligned one; how many answers were new."""
        folders: list[tuple[str, Path | None]] = []
        for subject in subjects:
            base = subject == self.model.key
            record = None if base else self.store.get(STAGES, subject)
            if record is None and not base:
                raise RuntimeError(f"the adapter of stage {subject[:12]} vanished from the store")
            folders.append((subject, record.folder if record else None))
        return generate_answers(self.store, self.engine, self.tokenizer, folders, asked)
