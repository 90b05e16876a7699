"""The training loop: one optimiser step of every slot of a group at a time.

Slots share the forward and backward pass through the frozen base and nothing else. Each slot's
loss is normalised by its own batch, its gradients are clipped by its own norm and its optimiser
is its own, so a group equals separate runs up to rounding.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from raycib.hooks.types import Correct
from raycib.models.adapters import AdapterSlots
from raycib.models.step import GroupStep
from raycib.models.tensors import Batch, Totals, collate, to_device
from raycib.objectives import Observations
from raycib.randomness import generator
from raycib.training.batches import BatchSampler
from raycib.training.slot import Slot
from raycib.training.workers import Workers

AfterStep = Callable[[Sequence[Slot]], None]


def train(
    adapters: AdapterSlots,
    slots: Sequence[Slot],
    workers: Workers,
    micro_batch_size: int,
    after_step: AfterStep = lambda slots: None,
) -> None:
    """Train every slot to its last step; `after_step` sees the slots that just moved.

    `micro_batch_size` is in rows a slot and worker; it changes memory, not results. A slot whose
    gradients stop being finite is marked failed and left behind; the others go on.
    """
    while moving := [slot for slot in slots if slot.active]:
        take_step(adapters, moving, workers, micro_batch_size)
        after_step(moving)


def take_step(
    adapters: AdapterSlots, slots: Sequence[Slot], workers: Workers, micro_batch_size: int
) -> None:
    """One optimiser step of each of `slots`."""
    for slot in slots:
        slot.optimiser.zero_grad(set_to_none=True)
        slot.objective.begin_step(slot.step, generator(slot.stage.seed, "negatives", slot.step))
    micros = _micro_batches(adapters, slots, workers, micro_batch_size)
    device = next(iter(slots[0].parameters.values())).device
    mixed = adapters.model.dtype == torch.bfloat16
    terms: dict[int, dict[str, Tensor]] = {slot.index: defaultdict(_zero) for slot in slots}
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        corrections = _gradient_transforms(slots, micros, workers)
    while micros:
        steps = micros.pop(0).steps()  # nothing holds on to a pass that is over
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = torch.zeros((), device=device)
            for slot in slots:
                if slot.index not in steps:
                    continue
                for name, term in slot.objective(steps[slot.index]).items():
                    loss = loss + term.weight * term.value
                    terms[slot.index][name] = terms[slot.index][name] + term.value.detach()
        loss.backward()
    _sum_gradients(slots, workers)
    for slot in slots:
        if correct := corrections.get(slot.index):
            correct(slot.parameters)
    shared = workers.gather(
        {
            slot.index: (
                {name: float(value) for name, value in terms[slot.index].items()},
                slot.objective.observations() if workers.size == 1
                else {k: v.cpu() for k, v in slot.objective.observations().items()},
            )
            for slot in slots
        }
    )  # fmt: skip
    for slot in slots:
        entry = {"step": slot.step + 1, **slot.update()}
        for part, _ in (each[slot.index] for each in shared):
            for name, value in part.items():
                entry[name] = entry.get(name, 0.0) + value
        slot.history.append(entry)
        if bad := [name for name, value in entry.items() if value - value != 0]:
            slot.failed = f"{', '.join(bad)} not finite at step {slot.step + 1}"
            continue
        device = next(iter(slot.parameters.values())).device
        seen = _in_order([each[slot.index][1] for each in shared], device)
        slot.objective.end_step(slot.step, seen)
        slot.step += 1


def _zero() -> Tensor:
    return torch.zeros(())


def _gradient_transforms(
    slots: Sequence[Slot], micros: Sequence[GroupStep], workers: Workers
) -> dict[int, Correct]:
    """What methods do before the gradient, and what they want done to it, by slot."""
    found = {}
    for slot in slots:
        if slot.hooks.gradient_transform is not None:
            steps = [micro.steps()[slot.index] for micro in micros if slot.index in micro.batches]
            correct = slot.hooks.gradient_transform(steps, slot.parameters, workers.sum_)
            if correct is not None:
                found[slot.index] = correct
    return found


def _micro_batches(
    adapters: AdapterSlots, slots: Sequence[Slot], workers: Workers, size: int
) -> list[GroupStep]:
    """This worker's rows of every slot, cut into micro-batches of at most `size` rows a slot.

    Safety rows are spread over a slot's micro-batches, among the workers that have any.
    """
    device = next(iter(slots[0].parameters.values())).device
    micros: list[tuple[dict[int, Batch], dict[int, Batch]]] = []
    totals: tuple[dict[int, Totals], dict[int, Totals]] = ({}, {})
    for slot in slots:
        rows = slot.task.rows(slot.step)
        totals[0][slot.index] = slot.task.totals(rows)
        positions = range(len(rows))[workers.rank :: workers.size]
        parts = [positions[start : start + size] for start in range(0, len(positions), size)]
        micros += [({}, {}) for _ in range(len(parts) - len(micros))]
        for micro, part in zip(micros, parts, strict=False):
            micro[0][slot.index] = _batch(slot.task, rows, part, device)
        if slot.safety is not None:
            rows = slot.safety.rows(slot.step)
            totals[1][slot.index] = slot.safety.totals(rows)
            with_rows = min(workers.size, totals[0][slot.index].rows)
            positions = range(len(rows))[workers.rank :: with_rows] if parts else range(0)
            for number, micro in enumerate(micros[: len(parts)]):
                if part := positions[number :: len(parts)]:
                    micro[1][slot.index] = _batch(slot.safety, rows, part, device)
    caches = {slot.index: slot.task.cache for slot in slots}
    safety_banks = {slot.index: slot.safety.cache for slot in slots if slot.safety is not None}
    return [
        GroupStep(
            adapters,
            task,
            totals[0],
            caches,
            GroupStep(adapters, safety, totals[1], safety_banks) if safety else None,
        )
        for task, safety in micros
    ]


def _batch(
    stream: BatchSampler, rows: Sequence[int], positions: Sequence[int], device: torch.device
) -> Batch:
    chosen = collate(stream.data, [rows[place] for place in positions], positions)
    return to_device(chosen, device)


def _sum_gradients(slots: Sequence[Slot], workers: Workers) -> None:
    """Shares add up: no division by the number of workers or micro-batches anywhere."""
    gradients: list[Tensor] = []
    for slot in slots:
        for parameter in slot.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    workers.sum_(gradients)


def _in_order(parts: Sequence[Observations], device: torch.device) -> Observations:
    """Observations of all workers as one worker alone would have made them."""
    parts = [part for part in parts if part]
    if not parts:
        return {}
    merged = {name: torch.cat([part[name] for part in parts]).to(device) for name in parts[0]}
    positions = next(v for k, v in merged.items() if k.rpartition("/")[2] == "positions")
    order = positions.argsort()
    return {name: value[order] for name, value in merged.items()}
