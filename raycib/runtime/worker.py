"""What runs on the machines that train: references, groups of adapters, their measures."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from raycib.config import EvalSpec, ModelSpec, Precision
from raycib.config.plan import AdapterGroup
from raycib.config.presets import Execution
from raycib.models.adapters import LoRAShape
from raycib.models.compiled import compile_parts
from raycib.models.device import device_of, ran_out
from raycib.runtime.leases import Outcome
from raycib.runtime.measuring import measure_slots
from raycib.runtime.pieces import Piece, Prepare, keys_of, part_of
from raycib.store import Store
from raycib.store.kinds import STAGES
from raycib.training.group import Loaded, ensure_cache, open_slots, shapes_of, train_group
from raycib.training.memory import give_back, keep_memory
from raycib.training.slot import Slot
from raycib.training.strategies import strategy_of
from raycib.training.workers import Workers

TASKS = "tasks"
"""What claims of workers are called."""
Report = Callable[[str, Mapping[str, Any], bool], None]
"""Told how far a group is: its name, the news, and whether they are its last."""


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

    def do(self, piece: Piece, parts: int = 1) -> Outcome:
        """Do what of it no other sweep on this store is doing. Every worker of a group calls this:
        the first alone measures and prepares, with what the others have of the base, and says in
        how many `parts` adapters are trained, where memory was too little for all at once."""
        keys = [key for key in keys_of(piece) if key not in self._failed]
        claims = self.store.claims(TASKS, keys) if self.workers.rank == 0 else nullcontext(set())
        with claims as claimed:
            found = frozenset(key for key in claimed if self.store.get(STAGES, key))
            mine, found, parts = self.workers.gather((claimed, found, parts))[0]
            self._notes = []
            try:
                failures = self._do(part_of(piece, mine), parts) if mine else {}
            finally:
                self.workers.meet()
        self._failed |= failures
        return Outcome(failures, found, frozenset(keys) - mine, tuple(self._notes))

    def _do(self, piece: Piece, parts: int) -> dict[str, str]:
        """Why each failed stage of a group failed, by key."""
        leads = self.workers.rank == 0
        if isinstance(piece, AdapterGroup):
            return self._train_in_parts(piece, parts)
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

    def _train_in_parts(self, group: AdapterGroup, parts: int) -> dict[str, str]:
        """Train so many parts of a group, one after the other."""
        size = -(-len(group.jobs) // parts)
        jobs = [group.jobs[start : start + size] for start in range(0, len(group.jobs), size)]
        if len(jobs) > 1:
            *sizes, last = (str(len(part)) for part in jobs)
            self._notes.append(
                f"no memory for {len(group.jobs)} adapters at once: {', '.join(sizes)} and {last} "
                "were trained"
            )
        failures: dict[str, str] = {}
        for part in jobs:
            failures |= self._train_as_fits(group.model_copy(update={"jobs": part}))
        return failures

    def _train_as_fits(self, group: AdapterGroup) -> dict[str, str]:
        """Train a group, or one half after the other where no memory is left for all of it. Workers
        that train together end instead, for the others wait for the one that has none."""
        try:
            return self.train(group)
        except RuntimeError as error:
            if not ran_out(error) or len(group.jobs) == 1 or self.workers.size > 1:
                raise
        self._loaded = None  # out here, where no traceback holds what is in the way
        give_back()
        return self._train_in_parts(group, 2)

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
            if self.execution.compile and before is None:
                with loaded.adapters.disabled():
                    self._notes += compile_parts(loaded.adapters.model)
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
