"""The memory of a group's worker, from its stages and the lengths of their rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from raycib.config import StageSpec, Tokens
from raycib.config.plan import MOST_SLOTS
from raycib.config.presets import Execution
from raycib.costs.memory import (
    ADAPTER_BYTES,
    CACHED_TOKENS,
    RUNTIME,
    Adapter,
    Shards,
    activations,
    adapter_bytes,
    said,
    trained_bytes,
    unpacked_bytes,
    weight_bytes,
)
from raycib.costs.sizes import BYTES, Sizes
from raycib.counting import count
from raycib.data.lengths import Length
from raycib.runtime.capacity import ENGINE, JUDGE
from raycib.runtime.execution import engine_of
from raycib.runtime.planning.machine import Machine
from raycib.runtime.sweep import Sweep

ENGINE_ADAPTERS = 8
"""That vLLM holds for one batch."""


@dataclass(frozen=True)
class Memory:
    """What one process needs, by part, in bytes."""

    what: str
    parts: Mapping[str, int]
    room: int | None
    """That it may take."""

    @property
    def total(self) -> int:
        """All of it, at the peak."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether that is there, as far as is known."""
        return self.room is None or self.total <= self.room

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {said(size)}" for name, size in self.parts.items() if size)
        room = f" of {said(self.room)}" if self.room is not None else ""
        room += ", TOO LITTLE" if not self.fits else ""
        return f"{self.what}: {said(self.total)}{room} ({parts})"


class Group:
    """The memory of a group of a sweep's stages that train an adapter."""

    def __init__(self, sweep: Sweep, machine: Machine) -> None:
        self.sweep, self.machine = sweep, machine
        self.model = sweep.setup.model
        self.stages = [s for s in sweep.stages.values() if s.steps]

    @cached_property
    def sizes(self) -> Sizes:
        """Of the base."""
        base = self.sweep.setup.inputs.alignment_stage
        return self.sweep.setup.reader.sizes(base.model.source if base else self.model.source)

    def rows(self, stage: StageSpec) -> list[Length]:
        """Lengths of a stage's rows."""
        return self.sweep.setup.sets.used(stage.task)

    @cached_property
    def _tasks(self) -> list[list[Length]]:
        """The rows of each task."""
        return [self.rows(one) for one in {one.task.key: one for one in self.stages}.values()]

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest row of all."""
        return max(one.whole for rows in self._tasks for one in rows)

    @cached_property
    def answered(self) -> float:
        """Of a row's tokens, the largest share that is scored."""
        return max(
            sum(o.whole - o.prompt for o in rows) / sum(o.whole for o in rows)
            for rows in self._tasks
        )

    def slots(self, execution: Execution) -> int:
        """Slots of the largest group."""
        most = execution.group_size or execution.most_slots or MOST_SLOTS
        return min(most, len(self.stages))

    def tokens(self, execution: Execution, slots: int) -> int:
        """Of the largest micro-batch of a worker, with its padding, if any; an upper bound."""
        batch = max(stage.trainer.batch_size for stage in self.stages)
        if execution.micro_batch_tokens is not None:
            budget = max(execution.micro_batch_tokens, self.longest)
            return min(budget, slots * batch * self.longest)
        return slots * min(batch, execution.micro_batch_size) * self.longest

    def memory(self, execution: Execution, slots: int | None = None) -> Memory:
        """Of one worker of a group of so many slots; None: the largest that there may be."""
        slots = min(slots or self.slots(execution), len(self.stages))
        dtype, sizes = self.model.dtype, self.sizes
        heaviest = sorted(self.stages, key=self._slot_bytes, reverse=True)[:slots]
        adapters = [adapter_of(stage) for stage in heaviest]
        tokens = self.tokens(execution, slots)
        tokens += self._beside(execution, heaviest, tokens)
        scored = int(tokens * self.answered)
        passes = activations(
            sizes, adapters, dtype, tokens, scored, execution.checkpoint_activations,
            self._packed(execution), self._seen(execution, self.longest),
        )  # fmt: skip
        parts = {
            **self._base(execution),
            f"{count(slots, 'adapter')} with gradients and Adam": sum(
                adapter_bytes(sizes, one) for one in adapters
            ),
            "what methods keep": sum(
                self._slot_bytes(stage) - adapter_bytes(sizes, adapter_of(stage))
                for stage in heaviest
            )
            + self._reference_bytes(heaviest),
            f"layers of a micro-batch of {tokens:,} tokens": passes.kept,
            "output head, or one layer's gradients": passes.total - passes.kept,
            "process": RUNTIME[self.machine.gpu is not None],
        }
        return Memory("a group's worker", parts, self.machine.room)

    def _beside(self, execution: Execution, stages: Sequence[StageSpec], tokens: int) -> int:
        """Tokens of safety rows in a micro-batch of so many of the task's, at most."""
        rows, slots = max(s.method_in_effect.extra_rows(0) for s in stages), len(stages)
        if execution.micro_batch_tokens is None:  # dealt over all of a step, of which one is short
            steps = [(s.trainer.batch_size, s.task.num_rows) for s in stages]
            shortest = min(whole % batch or batch for batch, whole in steps)
            rows = math.ceil(rows / math.ceil(shortest / execution.micro_batch_size))
        elif self._packed(execution):  # in a slot's first, which it may share with whole others
            slots = min(slots, 1 + int(tokens / self._least_step))
        return int(slots * rows * self._longest_beside)

    def _base(self, execution: Execution) -> dict[str, int]:
        """The frozen base, as the strategy lays it over the workers."""
        if execution.strategy == "replicated":
            how = self.model.dtype, self.model.quantization
            return {
                "base": weight_bytes(self.sizes, *how),
                "layers that are unpacked": unpacked_bytes(self.sizes, *how),
            }
        shards = Shards.of(self.sizes, execution.workers)
        own, gathered = shards.frozen(self.model.dtype)
        return {
            f"base, 1 / {execution.workers} of its layers": own,
            "the layer that is gathered": gathered,
        }

    def needs(self, execution: Execution, slots: int | None = None) -> list[Memory]:
        """Of each worker that trains something; see `memory` for `slots`."""
        alignment = self.alignment(execution)
        groups = [self.memory(execution, slots)] if self.stages else []
        found = [alignment, *groups] if alignment else groups
        return [*found, self._reading()] if execution.strategy != "replicated" else found

    def _reading(self) -> Memory:
        """Of a worker before it keeps its share of the base, in the host's memory."""
        on_gpu = self.machine.gpu is not None
        parts = {"base": weight_bytes(self.sizes, self.model.dtype), "process": RUNTIME[False]}
        room = None if on_gpu else self.machine.room
        return Memory("the host, for each worker that reads a base in shards", parts, room)

    def alignment(self, execution: Execution) -> Memory | None:
        """Of the worker that makes the aligned model, all weights trained (see
        `raycib.models.adapters.whole`); None where it is there."""
        left = [s for s in self.sweep.alignment_stages.values() if s.key not in self.sweep.trained]
        if not left:
            return None
        sizes, precision = self.sizes, left[0].trainer.precision
        longest = max(one.whole for one in self.rows(left[0]))
        rows = execution.micro_batch_size * longest
        tokens = max(execution.micro_batch_tokens or rows, longest)
        everything = Adapter(0, tuple({name.rpartition(".")[2] for name in sizes.linears}))
        passes = activations(
            sizes, [everything], precision, tokens, tokens, execution.checkpoint_activations,
            self._packed(execution), self._seen(execution, longest),
        )  # fmt: skip
        weights = {"all weights with gradients and Adam": trained_bytes(sizes, precision)}
        if execution.strategy != "replicated":
            shards = Shards.of(sizes, execution.workers)
            own, gathered = shards.trained(precision, execution.strategy == "zero3")
            weights = {
                f"1 / {execution.workers} of all weights with gradients and Adam": own,
                "what is gathered of them": gathered,
            }
        parts = {
            **weights,
            f"a micro-batch of {tokens:,} tokens": passes.total,
            "process": RUNTIME[self.machine.gpu is not None],
        }
        return Memory("the worker that aligns the base", parts, self.machine.room)

    def _packed(self, execution: Execution) -> bool:
        return execution.micro_batch_tokens is not None and self.sizes.packs

    def _seen(self, execution: Execution, longest: int) -> int:
        """Tokens of a row whose scores attention keeps, at most; 0 where it keeps none."""
        own = "eager" if self.sizes.capped else "sdpa"
        return longest if (execution.attention or own) == "eager" else 0

    @cached_property
    def _least_step(self) -> float:
        """Tokens of the shortest optimiser step of a stage, on average."""
        return min(map(self._step_tokens, self.stages))

    def _step_tokens(self, stage: StageSpec) -> float:
        """Of an optimiser step, on average."""
        rows = self.rows(stage)
        return min(stage.trainer.batch_size, len(rows)) * sum(o.whole for o in rows) / len(rows)

    def _perturbation_bytes(self, stage: StageSpec) -> int:
        """Of what is added to each attention block on all rows of a step, and its gradient, in
        float32 (see `raycib.hooks.vaccine`)."""
        if not stage.method_in_effect.perturbs_attention:
            return 0
        return int(8 * self._step_tokens(stage) * self.sizes.width * len(self.sizes.layers))

    @cached_property
    def _longest_beside(self) -> int:
        """Tokens of the longest safety row."""
        beside = {
            rows.key: rows
            for stage in self.stages
            if (rows := stage.method_in_effect.safety_rows) is not None
        }
        found = (one for rows in beside.values() for one in self.sweep.setup.sets.used(rows))
        return max((one.whole for one in found), default=0)

    def _slot_bytes(self, stage: StageSpec) -> int:
        """Of what belongs to one slot: its adapter, one below it, and what its method keeps."""
        adapter, sizes, method = adapter_of(stage), self.sizes, stage.method_in_effect
        own = sizes.adapter_parameters(adapter.rank, adapter.targets)
        adapted = sum(a * b for a, b in sizes.adapted(adapter.targets).values())
        below = sizes.adapter_parameters(stage.exported_rank, adapter.targets) - own
        kept = method.extra_bytes(adapted, own) + self._perturbation_bytes(stage)
        return ADAPTER_BYTES * own + 4 * max(0, below) + kept

    def _reference_bytes(self, stages: Sequence[StageSpec]) -> int:
        """Of references of rows, float32; slots that read the same of the same rows share them."""
        read = {(s.task.rows, s.method_in_effect.features): s.task.num_rows for s in stages}
        return sum(
            4 * rows * self.sizes.width * sum(what[0] not in get_args(Tokens) for what in features)
            for (_, features), rows in read.items()
        )


def engine_memory(sweep: Sweep, sizes: Sizes, machine: Machine) -> Memory:
    """Of the engine that answers."""
    execution, model = sweep.setup.execution, sweep.setup.model
    dtype, quantization = model.dtype, model.quantization
    targets = sweep.setup.lora.targets
    own = BYTES[dtype] * sizes.adapter_parameters(sweep.largest_rank, targets)
    token = 2 * sizes.keys * len(sizes.layers) * BYTES[dtype]
    # vLLM can do with less, one answer after the other; transformers' batches are of one size.
    batches = engine_of(sweep.setup.options, model) == "transformers"
    adapters = 1 if batches else ENGINE_ADAPTERS
    cached = max(CACHED_TOKENS, sweep.engine_length) if batches else sweep.engine_length
    parts = {
        "base": weight_bytes(sizes, dtype, quantization),
        "layers that are unpacked": unpacked_bytes(sizes, dtype, quantization),
        count(adapters, "adapter"): adapters * own,
        f"keys and values of one {'batch' if batches else 'answer'}": cached * token,
        "process": RUNTIME[machine.gpu is not None],
    }
    room = machine.room_of(execution.engine_gpus, execution.engine_replicas or 1)
    return Memory(ENGINE, parts, room)


def judge_memory(sweep: Sweep, sizes: Sizes, machine: Machine) -> Memory:
    """Of a judge that we serve."""
    on_gpu = machine.gpu is not None
    dtype = sizes.dtype if on_gpu else "float32"
    parts = {"weights": weight_bytes(sizes, dtype), "process": RUNTIME[on_gpu]}
    execution = sweep.setup.execution
    room = machine.room_of(execution.judge_gpus, execution.judge_replicas or 1)
    return Memory(JUDGE, parts, room)


def adapter_of(stage: StageSpec) -> Adapter:
    """The shape of a stage's adapter."""
    assert stage.lora is not None
    return Adapter(stage.lora.rank, stage.lora.targets)
