"""What runs on the machines with the accelerators: references, groups, answers."""

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from raycib.config import EvalSpec, Feature, LmEvalSpec, ModelSpec, Precision, RowsSpec
from raycib.config.plan import AdapterGroup
from raycib.config.presets import Execution
from raycib.data.chat import Encoded
from raycib.data.chat_format import chat_format
from raycib.evals.alone import Pick, ask_alone
from raycib.evals.answers import Answers, generate_answers
from raycib.evals.generate import Engine, Generator
from raycib.evals.representation import measure
from raycib.evals.scores import MEASURES_FILE
from raycib.model_files import verified
from raycib.models import load_tokenizer
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.reference import ReferenceCache
from raycib.runtime.leases import Outcome
from raycib.runtime.pieces import Piece, Prepare, keys_of, part_of
from raycib.store import Record, Store
from raycib.store.kinds import GENERATIONS, MEASURES, POINTS, STAGES
from raycib.training.group import Loaded, ensure_cache, open_slots, shapes_of, train_group
from raycib.training.memory import keep_memory
from raycib.training.slot import Slot
from raycib.training.strategies import strategy_of
from raycib.training.workers import Workers

TASKS = "tasks"
"""What claims of workers are called."""
Features = tuple[Feature, ...]
Report = Callable[[str, Mapping[str, Any], bool], None]
"""Told how far a group is: its name, the news, and whether they are its last."""


def device_of(gpus: float) -> torch.device:
    """Where this process computes; on a CPU with one thread."""
    if gpus:
        return torch.device("cuda", torch.cuda.current_device())
    torch.set_num_threads(1)
    return torch.device("cpu")


def measure_slots(
    loaded: Loaded, store: Store, model: ModelSpec, model_ids: dict[int, str], evals: EvalSpec
) -> None:
    """Measure slots (by subject) on held-out rows and store what is new."""

    def ensure(
        kind: str,
        file: str,
        key_of: Callable[[str], str],
        about: BaseModel,
        values_of: Callable[[list[int]], Mapping[int, BaseModel]],
    ) -> None:
        todo = {n: one for n, one in model_ids.items() if store.get(kind, key_of(one)) is None}
        for slot, values in values_of(list(todo)).items() if todo else ():
            text, told = values.model_dump_json(indent=1), about.model_dump(mode="json")

            def write(folder: Path, text: str = text) -> None:
                (folder / file).write_text(text)

            store.put(kind, key_of(todo[slot]), write, {"subject": todo[slot], "rows": told})

    def held_out(slots: list[int]) -> Mapping[int, BaseModel]:
        cache = ensure_cache(loaded, store, model, evals.held_out, evals.features)
        return measure(loaded.adapters, slots, loaded.encode(evals.held_out), cache, evals)

    ensure(MEASURES, MEASURES_FILE, evals.measures_key, evals.held_out, held_out)
    for one in evals.measures:
        values_of = partial(one.measure, Models(loaded, store, model))
        ensure(one.folder, one.file, one.stored_key, one, values_of)
    _score_likelihoods(loaded, store, model, model_ids, evals)


def _score_likelihoods(
    loaded: Loaded, store: Store, model: ModelSpec, model_ids: dict[int, str], evals: EvalSpec
) -> None:
    """The benchmarks of lm-eval that ask for the likelihood of given texts."""
    for spec in (one for one in evals.benchmarks if not one.in_words):
        from raycib.evals.harness.models import AdapterLM
        from raycib.evals.harness.run import ensure_scores

        tokenizer = load_tokenizer(model.source, model.template)
        for slot, model_id in model_ids.items():
            asked = partial(AdapterLM, loaded.adapters, tokenizer, slot)
            ensure_scores(store, spec, model_id, evals.engine, asked)


@dataclass(frozen=True)
class Models:
    """What a study's measure sees of a group in memory (`raycib.config.measure.InMemory`)."""

    loaded: Loaded
    store: Store
    model: ModelSpec

    @property
    def adapters(self) -> AdapterSlots:
        """One slot a model."""
        return self.loaded.adapters

    def encode(self, rows: RowsSpec) -> list[Encoded]:
        """Rows as tokens."""
        return self.loaded.encode(rows)

    def reference(self, rows: RowsSpec, features: Features) -> ReferenceCache:
        """The aligned model's readings of rows, from the store or computed."""
        return ensure_cache(self.loaded, self.store, self.model, rows, features)


class TrainWorker:
    """A process that trains. The base model and its tokens stay in memory from piece to piece;
    every worker of a group has one."""

    def __init__(
        self,
        store: Store,
        execution: Execution,
        report: Report,
        leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        """`leaving`: whether this machine is about to go."""
        keep_memory()
        self.store, self.execution, self.report, self._leaving = store, execution, report, leaving
        self._device = device_of(execution.gpus_per_worker)
        self._strategy = strategy_of(execution.strategy, Workers.current(), self._device)
        self.workers = self._strategy.workers
        self._loaded: Loaded | None = None
        self._failed: dict[str, str] = {}
        """Stages that failed here: they would fail again."""
        self._notes: list[str] = []
        """What people should know of what is done now."""

    def do(self, piece: Piece) -> Outcome:
        """Do what of it no other sweep on this store is doing. Every worker of a group calls this:
        the first alone measures and prepares, with what the others have of the base."""
        keys = [key for key in keys_of(piece) if key not in self._failed]
        claims = self.store.claims(TASKS, keys) if self.workers.rank == 0 else nullcontext(set())
        with claims as claimed:
            found = frozenset(key for key in claimed if self.store.get(STAGES, key))
            mine, found = self.workers.gather((claimed, found))[0]
            self._notes = []
            try:
                failures = self._do(part_of(piece, mine)) if mine else {}
            finally:
                self.workers.meet()
        self._failed |= failures
        return Outcome(failures, found, frozenset(keys) - mine, tuple(self._notes))

    def _do(self, piece: Piece) -> dict[str, str]:
        """Why each failed stage of a group failed, by key."""
        leads = self.workers.rank == 0
        if isinstance(piece, AdapterGroup):
            return self._train_as_fits(piece)
        if isinstance(piece, Prepare):
            # A slot of zeros: the aligned model itself.
            loaded = self._open(piece.model, [LoRAShape(1, 1.0, piece.lora.targets)])
            if leads:
                self.prepare(piece, loaded)
        elif leads:
            for job in piece.jobs:
                job.run(self.store, self._device)
        return {}

    def prepare(self, piece: Prepare, loaded: Loaded) -> None:
        """The aligned model's part, before any training: references of all rows that need them,
        and its own measures (the "before" of every cell)."""
        for task, features in piece.tasks:
            ensure_cache(loaded, self.store, piece.model, task, features)
        for one in piece.evals:
            ensure_cache(loaded, self.store, piece.model, one.held_out, one.features)
            measure_slots(loaded, self.store, piece.model, {0: piece.model.key}, one)

    def _train_as_fits(self, group: AdapterGroup) -> dict[str, str]:
        """Train a group, or one half after the other where its accelerator has no memory for all of
        it. Workers that train together cannot: the others wait for the one that has none."""
        try:
            return self.train(group)
        except torch.OutOfMemoryError:
            if len(group.jobs) == 1 or self.workers.size > 1:
                raise
        self._loaded = None  # out here, where no traceback holds what is in the way
        gc.collect()
        torch.cuda.empty_cache()
        half = -(-len(group.jobs) // 2)
        parts = [
            group.model_copy(update={"jobs": j}) for j in (group.jobs[:half], group.jobs[half:])
        ]
        sizes = " and ".join(str(len(part.jobs)) for part in parts)
        self._notes.append(
            f"no memory for {len(group.jobs)} adapters at once: {sizes} were trained"
        )
        failures: dict[str, str] = {}
        for part in parts:
            failures |= self._train_as_fits(part)
        return failures

    def train(self, group: AdapterGroup) -> dict[str, str]:
        """Train a group's unfinished stages, then measure all of them; why each failed stage
        failed, by key."""
        workers, stages = self.workers, [job.stage for job in group.jobs]
        precision = stages[0].trainer.precision
        loaded = self._open(stages[0].model, shapes_of(stages), precision)
        loaded.adapters.checkpointed = self.execution.checkpoint_activations
        loaded.adapters.apart = self.execution.slots_apart

        def progress(slots: Sequence[Slot]) -> None:
            if workers.rank == 0:
                self.report(group.name, _news(slots), not any(slot.active for slot in slots))

        failures = train_group(
            group, loaded, self.store, workers, self.execution.micro_batch_size,
            self.execution.checkpoint_every, progress, self.execution.micro_batch_tokens,
            self._leaving,
        )  # fmt: skip
        if workers.rank == 0:
            wanted: dict[str, tuple[EvalSpec, dict[int, str]]] = {}
            for slot, job in enumerate(group.jobs):
                for evals in job.evals:
                    if job.stage.key not in failures:
                        wanted.setdefault(evals.key, (evals, {}))[1][slot] = job.stage.key
            for evals, model_ids in wanted.values():
                measure_slots(loaded, self.store, stages[0].model, model_ids, evals)
        return failures

    def _open(
        self, model: ModelSpec, shapes: Sequence[LoRAShape], precision: Precision = "float32"
    ) -> Loaded:
        """A base with slots of these `shapes`; the one in memory where it is the same."""
        before, self._loaded = self._loaded, None
        if before is not None and not (shapes and before.model == model):
            before = None  # its memory is for the other
        loaded = open_slots(
            model, shapes, self._device, self.execution.attention, before, self._strategy, precision
        )
        if shapes:  # without any its weights are trained
            self._loaded = loaded
        return loaded


def _news(slots: Sequence[Slot]) -> dict[str, Any]:
    terms: dict[str, list[float]] = {}
    for slot in slots:
        for name, value in (slot.history[-1] if slot.history else {}).items():
            if name not in ("step", "grad_norm"):
                terms.setdefault(name, []).append(value)
    return {
        "slots": len(slots),
        "done": sum(slot.step for slot in slots),
        "steps": sum(slot.stage.steps for slot in slots),
        "terms": {name: sum(values) / len(values) for name, values in terms.items()},
        "curves": {one.stage.key: one.history[-1:] for one in slots if one.history},
    }


def with_vllm(
    model: ModelSpec, rank: int, max_model_len: int, batch_invariant: bool = False
) -> tuple[Any, Engine]:
    """A tokenizer, and vLLM with the base; `rank` is the largest that any adapter has."""
    tokenizer = load_tokenizer(model.source, model.template)
    engine = Generator(
        verified(model),
        max_lora_rank=rank,
        max_model_len=max_model_len,
        dtype=model.dtype,
        stop=[chat_format(tokenizer).end],
        batch_invariant=batch_invariant,
    )
    return tokenizer, engine


class Answering:
    """A warm engine of one base model, and the store that its answers go to."""

    def __init__(self, store: Store, model: ModelSpec, tokenizer: Any, engine: Engine) -> None:
        self.store, self.model, self.tokenizer, self.engine = store, model, tokenizer, engine
        self._answers = Answers(store)

    def answer(
        self,
        model_ids: Sequence[str],
        asked: Sequence[RowsSpec],
        benchmarks: Sequence[LmEvalSpec] = (),
    ) -> int:
        """Have models answer, stages by key or the aligned one; how many answers were new. Those
        that another sweep has answer are waited for."""
        with self.store.claims(GENERATIONS, model_ids) as mine:
            new = self._answer([one for one in model_ids if one in mine], asked, benchmarks)
        for other in (one for one in model_ids if one not in mine):
            with self.store.claim(GENERATIONS, other):
                new += self._answer([other], asked, benchmarks)
        return new

    def ask_alone(self, picks: Sequence[Pick]) -> None:
        """Have models give some of their answers again, each alone."""
        folders = {one.model_id: self._folder(one.model_id) for one in picks}
        ask_alone(self._answers, self.engine, self.tokenizer, folders, picks)

    def _folder(self, model_id: str) -> Path | None:
        """Of a model's adapter."""
        if model_id == self.model.key:
            return None
        record = self._adapter(model_id)
        if record is None:
            raise RuntimeError(f"the adapter of stage {model_id[:12]} vanished from the store")
        return record.folder

    def _answer(
        self, model_ids: Sequence[str], asked: Sequence[RowsSpec], benchmarks: Sequence[LmEvalSpec]
    ) -> int:
        folders = [(model_id, self._folder(model_id)) for model_id in model_ids]
        new = generate_answers(self._answers, self.engine, self.tokenizer, folders, asked)
        for spec in (one for one in benchmarks if one.in_words):
            from raycib.evals.harness.run import ensure_scores

            tokenizer = load_tokenizer(self.model.source, self.model.template)
            for model_id, folder in folders:
                asked_by = partial(self.engine.for_lm_eval, tokenizer, folder)
                ensure_scores(self.store, spec, model_id, self.engine.name, asked_by)
        return new

    def _adapter(self, model_id: str) -> Record | None:
        """Of a stage, or of a point of its training."""
        return self.store.get(STAGES, model_id) or self.store.get(POINTS, model_id)
