"""Many rows through several slots: batches of bounded size, long rows first."""

from collections.abc import Iterator, Sequence

import torch

from raycib.data.chat import Encoded
from raycib.models.adapters import AdapterSlots
from raycib.models.group_step import GroupStep
from raycib.models.step import Step, steps_of
from raycib.models.tensors import Totals, collate, to_device, together

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
        batch = to_device(collate(data, chosen), device)
        with torch.autocast(device.type, torch.bfloat16, enabled=adapters.mixed):
            rows, totals = together(dict.fromkeys(slots, batch)), dict.fromkeys(slots, whole)
            yield chosen, steps_of(GroupStep(adapters, *rows, totals, {}))
