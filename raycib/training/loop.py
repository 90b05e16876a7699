"""The training loop: one optimiser step of every slot of a group at a time.

Slots share the forward and backward pass through the frozen base and nothing else. Each slot's
loss is normalised by its own batch, its gradients are clipped by its own norm and its optimiser
is its own, so a group equals separate runs up to rounding.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from raycib.hooks.types import Correct
from raycib.model_files.packing import narrows, packs
from raycib.models.adapters import AdapterSlots
from raycib.models.group_step import GroupStep
from raycib.models.step import Step, steps_of
from raycib.objectives import Observations
from raycib.randomness import generator
from raycib.training.batches import EffectiveBatch, rows_at
from raycib.training.micro_batches import Places, computed, deal
from raycib.training.slot import Slot, gradient_norms, update
from raycib.training.workers import Workers

AfterStep = Callable[[Sequence[Slot]], None]


def train(
    adapters: AdapterSlots,
    slots: Sequence[Slot],
    workers: Workers,
    micro_batch_size: int,
    after_step: AfterStep = lambda slots: None,
    micro_batch_tokens: int | None = None,
) -> None:
    """Train every slot to its last step; `after_step` sees the slots that just moved.

    `micro_batch_size` is in rows a slot and worker, `micro_batch_tokens` a worker's at a time
    instead, of rows end to end (see `deal`); both change memory and speed, not results. A slot
    whose gradients stop being finite is marked failed and left behind; the others go on.
    """
    while moving := [slot for slot in slots if slot.active]:
        take_step(adapters, moving, workers, micro_batch_size, micro_batch_tokens)
        after_step(moving)


def take_step(
    adapters: AdapterSlots,
    slots: Sequence[Slot],
    workers: Workers,
    micro_batch_size: int,
    micro_batch_tokens: int | None = None,
) -> None:
    """One optimiser step of each of `slots`."""
    for slot in slots:
        adapters.begin(slot.index)
        slot.objective.begin_step(slot.step, generator(slot.stage.seed, "negatives", slot.step))
    micros = _micro_batches(adapters, slots, workers, micro_batch_size, micro_batch_tokens)
    device = next(iter(slots[0].parameters.values())).device
    terms: dict[int, dict[str, Tensor]] = {
        slot.index: defaultdict(partial(torch.zeros, (), device=device)) for slot in slots
    }
    with torch.autocast(device.type, torch.bfloat16, enabled=adapters.mixed):
        corrections = _gradient_transforms(slots, micros, workers)
    while micros:
        steps = steps_of(micros.pop(0))  # nothing holds on to a pass that is over

        def loss(steps: Mapping[int, Step] = steps) -> Tensor:
            total = torch.zeros((), device=device)
            for slot in slots:
                if slot.index not in steps:
                    continue
                for name, term in slot.objective(steps[slot.index]).items():
                    total = total + term.weight * term.value
                    terms[slot.index][name] = terms[slot.index][name] + term.value.detach()
            return total

        with torch.autocast(device.type, torch.bfloat16, enabled=adapters.mixed):
            value = adapters.passing(loss)
        adapters.backward(value)
    adapters.sum_gradients([one for slot in slots for one in slot.trained], workers.sum_)
    for slot in slots:
        if correct := corrections.get(slot.index):
            correct(slot.parameters)
            adapters.collect(slot.index)
    norms = gradient_norms(slots, workers.norm) if adapters.in_parts else gradient_norms(slots)
    values = [value for own in terms.values() for value in own.values()]
    told = iter(torch.stack(values).tolist() if values else [])
    shared = workers.gather(
        {
            slot.index: (
                {name: next(told) for name in terms[slot.index]},
                slot.objective.observations() if workers.size == 1
                else {k: v.cpu() for k, v in slot.objective.observations().items()},
            )
            for slot in slots
        }
    )  # fmt: skip
    update(slots, norms)
    for slot, norm in zip(slots, norms, strict=True):
        entry = {"step": slot.step + 1, **slot.moved(norm)}
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


def _gradient_transforms(
    slots: Sequence[Slot], micros: Sequence[GroupStep], workers: Workers
) -> dict[int, Correct]:
    """What methods do before the gradient, and what they want done to it, by slot."""
    found = {}
    for slot in slots:
        if slot.hooks.gradient_transform is not None:
            steps = [Step(micro, slot.index) for micro in micros if slot.index in micro.rows]
            correct = slot.hooks.gradient_transform(steps, slot.parameters, workers.sum_)
            if correct is not None:
                found[slot.index] = correct
    return found


def _micro_batches(
    adapters: AdapterSlots, slots: Sequence[Slot], workers: Workers, size: int, tokens: int | None
) -> list[GroupStep]:
    """This worker's rows of every slot, as they are dealt; what all workers compute is counted."""
    task = {slot.index: slot.task.batch(slot.step) for slot in slots}
    safety = {slot.index: slot.safety.batch(slot.step) for slot in slots if slot.safety}
    lengths = (
        {n: one.lengths for n, one in task.items()},
        {n: one.lengths for n, one in safety.items()},
    )
    kind = adapters.model.config.model_type
    packed = tokens is not None and packs(kind)
    read = {slot.index: slot.objective.reads_prompts or not narrows(kind) for slot in slots}
    dealt = deal(*lengths, workers.size, size, tokens, packed, adapters.apart)
    spent = sum(
        (computed(micro, *lengths, packed) for own in dealt for micro in own), Counter[int]()
    )
    for slot in slots:
        useful = sum(sum(kind.get(slot.index, ())) for kind in lengths)
        slot.tokens += Counter(steps=1, useful=useful, computed=spent[slot.index])

    def group_step(
        rows: Mapping[int, EffectiveBatch],
        places: Places,
        beside: GroupStep | None = None,
        scored: bool = True,
    ) -> GroupStep:
        batch, counts = rows_at(rows, places)
        return GroupStep(
            adapters,
            batch if scored else batch.unscored,
            counts,
            {slot: one.totals for slot, one in rows.items()},
            {slot: one.sampler.cache for slot, one in rows.items()},
            beside,
            stacked=True,
            packed=packed,
            reads_prompts=any(read[slot] for slot in places),
        )

    micros = [
        group_step(task, m.task, group_step(safety, m.safety) if m.safety else None)
        for m in dealt[workers.rank]
    ]
    if adapters.in_parts:  # every worker passes through the model equally often
        for _ in range(max(map(len, dealt)) - len(micros)):
            micros.append(group_step(task, {slot: [0] for slot in task}, scored=False))
    return micros


def _in_order(parts: Sequence[Observations], device: torch.device) -> Observations:
    """Observations of all workers as one worker alone would have made them."""
    parts = [part for part in parts if part]
    if not parts:
        return {}
    merged = {name: torch.cat([part[name] for part in parts]).to(device) for name in parts[0]}
    positions = next(v for k, v in merged.items() if k.rpartition("/")[2] == "positions")
    order = positions.argsort()
    return {name: value[order] for name, value in merged.items()}
