"""What the gaps and the alignment tax are computed from: each row's loss, and how representations
predict the first token of an answer. Measured with the model still in memory, all lanes at once.
"""

from collections.abc import Sequence
from dataclasses import asdict

import torch
from pydantic import BaseModel
from torch import Tensor

from raycib.adapters import LaneAdapters
from raycib.data.chat import Encoded
from raycib.evals.passes import lane_steps
from raycib.reference import ReferenceBank
from raycib.spec import Layer, Pooling
from raycib.spec.evals import DECISION
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
    adapters: LaneAdapters,
    lanes: Sequence[int],
    alignment: Sequence[Encoded],
    task: Sequence[Encoded],
    bank: ReferenceBank,
) -> dict[int, RowLosses]:
    """Losses of each lane; `bank` has the aligned model's representations of the task's rows."""
    on_alignment, _ = _pass(adapters, lanes, alignment)
    on_task, decisions = _pass(adapters, lanes, task)
    first_tokens = torch.tensor([one.response[0] for one in task[:TAX_ROWS]])
    reference = bank.rows(*DECIDING)[:TAX_ROWS].cpu()
    found = {}
    for lane in lanes:
        tax = alignment_tax(decisions[lane][:TAX_ROWS], reference, first_tokens)
        found[lane] = RowLosses(
            alignment=on_alignment[lane].tolist(), task=on_task[lane].tolist(), tax=asdict(tax)
        )
    return found


def _pass(
    adapters: LaneAdapters, lanes: Sequence[int], data: Sequence[Encoded]
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Losses and decision states of all rows, by lane, on the CPU in the order of the rows."""
    order: list[int] = []
    losses: dict[int, list[Tensor]] = {lane: [] for lane in lanes}
    states: dict[int, list[Tensor]] = {lane: [] for lane in lanes}
    for chosen, steps in lane_steps(adapters, lanes, data):
        order += chosen
        for lane, step in steps.items():
            losses[lane].append(step.nll.sum(dim=1).float().cpu())
            states[lane].append(step.pooled(*DECIDING).float().cpu())
    back = torch.tensor(order).argsort()
    return (
        {lane: torch.cat(parts)[back] for lane, parts in losses.items()},
        {lane: torch.cat(parts)[back] for lane, parts in states.items()},
    )
