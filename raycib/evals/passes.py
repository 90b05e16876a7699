"""Many rows through several slots: batches of bounded size, long rows first."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from raycib.config import Layer, Pooling
from raycib.data.chat import Encoded
from raycib.models.adapters import AdapterSlots
from raycib.models.group_step import GroupStep
from raycib.models.step import Step, steps_of
from raycib.models.tensors import Totals, collate, together

TOKENS_AT_ONCE = 16384
"""Of all slots together, padding included."""


def slot_steps(
    adapters: AdapterSlots,
    slots: Sequence[int],
    data: Sequence[Encoded],
    tokens_at_once: int = TOKENS_AT_ONCE,
) -> Iterator[tuple[list[int], dict[int, Step]]]:
    """Which rows of `data` a batch holds, and what each slot makes of them; every row once.

    The longest come first, so that padding is short. A step's values are computed as they are
    read: read them before the next batch. Gradients are as the caller has them.
    """
    device = next(adapters.model.parameters()).device
    order = sorted(range(len(data)), key=lambda i: -len(data[i]))
    at_once = max(1, tokens_at_once // (len(data[order[0]]) * len(slots)))
    whole = Totals(len(data), sum(len(one.response) for one in data))
    for start in range(0, len(order), at_once):
        chosen = order[start : start + at_once]
        batch = collate(data, chosen)
        with torch.autocast(device.type, torch.bfloat16, enabled=adapters.mixed):
            rows, totals = together(dict.fromkeys(slots, batch)), dict.fromkeys(slots, whole)
            yield chosen, steps_of(GroupStep(adapters, *rows, totals, {}))


def readings(
    adapters: AdapterSlots,
    slots: Sequence[int],
    data: Sequence[Encoded],
    features: Sequence[tuple[Pooling, Layer]] = (),
) -> tuple[dict[int, Tensor], dict[tuple[int, Pooling], Tensor]]:
    """Losses of all rows, the sum over each answer's tokens of -log p, in nats, by slot; and their
    pooled states, by slot and pooling. All in the order of the rows."""
    order: list[int] = []
    losses: dict[int, list[Tensor]] = {slot: [] for slot in slots}
    states: dict[tuple[int, Pooling], list[Tensor]] = {}
    for chosen, steps in slot_steps(adapters, slots, data):
        order += chosen
        for slot, step in steps.items():
            losses[slot].append(step.nll.sum(dim=1).float())
            for pooling, layer in features:
                states.setdefault((slot, pooling), []).append(step.pooled(pooling, layer))
    back = torch.tensor(order).argsort()
    return (
        {slot: torch.cat(parts)[back] for slot, parts in losses.items()},
        {place: torch.cat(parts)[back] for place, parts in states.items()},
    )
