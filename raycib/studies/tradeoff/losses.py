"""What the gaps and the alignment tax are computed from: each row's loss, and how representations
predict the first token of an answer. Measured with the model still in memory, all slots at once.
"""

from collections.abc import Sequence
from dataclasses import asdict

import torch
from pydantic import BaseModel

from raycib.config import Layer, Pooling
from raycib.config.evals import DECISION
from raycib.data.chat import Encoded
from raycib.evals.passes import readings
from raycib.models.adapters import AdapterSlots
from raycib.models.reference import ReferenceCache
from raycib.studies.tradeoff.alignment_tax import alignment_tax

TAX_ROWS = 256
"""Of the task's rows: probes are fitted to them anew for every model."""
DECIDING: tuple[Pooling, Layer] = (DECISION, "final_norm")
"""Where the first token of an answer is decided: Z and C of the alignment tax."""


class RowLosses(BaseModel):
    """One model on the rows of the alignment data and of the task."""

    alignment: list[float]
    """-log p of each answer, nats: the sum over its tokens."""
    task: list[float]
    tax: dict[str, float]
    """The alignment tax and its parts on the task's rows, nats (`alignment_tax`)."""


@torch.no_grad()
def row_losses(
    adapters: AdapterSlots,
    slots: Sequence[int],
    alignment: Sequence[Encoded],
    task: Sequence[Encoded],
    cache: ReferenceCache,
) -> dict[int, RowLosses]:
    """Losses of each slot; `cache` has the aligned model's representations of the task's rows."""
    on_alignment, _ = readings(adapters, slots, alignment)
    on_task, decisions = readings(adapters, slots, task, [DECIDING])
    first_tokens = torch.tensor([one.response[0] for one in task[:TAX_ROWS]])
    reference = cache.rows(*DECIDING)[:TAX_ROWS].cpu()
    found = {}
    for slot in slots:
        states = decisions[slot, DECISION][:TAX_ROWS].float().cpu()
        tax = alignment_tax(states, reference, first_tokens)
        found[slot] = RowLosses(
            alignment=on_alignment[slot].tolist(), task=on_task[slot].tolist(), tax=asdict(tax)
        )
    return found
