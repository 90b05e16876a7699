"""What fine-tuning did to the representations: I(Z;C), cosines, held-out loss, distance.

Measured on held-out rows with the model still in memory, for all slots of a group at once, and in
the same way for the aligned model itself, whose values are the "before" of every cell.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from pydantic import BaseModel
from torch import Tensor
from torch.nn import functional as F

from raycib.config import EvalSpec
from raycib.config.evals import DECISION
from raycib.data.chat import Encoded
from raycib.evals.passes import readings
from raycib.models.adapters import AdapterSlots
from raycib.models.reference import ReferenceCache
from raycib.objectives.cib import info_nce

TEMPERATURE = 0.2
"""Of the estimate; the CIB paper's tau, whatever the training used."""
MOST_NEGATIVES = 512
"""K of the estimate, as in the CIB paper (5.3), or all other held-out rows if they are fewer."""


class Measures(BaseModel):
    """One model on the held-out rows of a task. Information and losses in nats."""

    eval_loss: float
    """Mean over response tokens."""
    mutual_information: float
    """InfoNCE estimate of I(Z;C), a lower bound, in the evaluation's pooling."""
    mutual_information_last_prompt: float
    """The same at the last prompt token."""
    mutual_information_ceiling: float
    """ln(K + 1), which no estimate can exceed."""
    num_negatives: int
    cosine: float
    """Mean cos(z, zref)."""
    negative_cosine: float
    """Mean cosine of z to the reference of another row; near 1, InfoNCE means little."""
    distance: float
    """Frobenius norm of the effective update over all adapted layers."""
    row_losses: list[float]
    row_cosines: list[float]


def mutual_information(
    z: Float[Tensor, "rows dim"], reference: Float[Tensor, "rows dim"]
) -> tuple[float, float, int]:
    """(I, mean negative cosine, K): log(K + 1) - InfoNCE (Eq. 17), in nats.

    Negatives are the references of other held-out rows, so they are draws of C and the bound
    holds; hard negatives would void it. With more than K other rows, K are drawn for each row
    from a fixed seed.
    """
    rows = len(z)
    if rows < 2:
        raise ValueError(f"I(Z;C) needs at least 2 held-out rows, found {rows}")
    count = min(MOST_NEGATIVES, rows - 1)
    weights = 1 - torch.eye(rows)
    drawn = torch.multinomial(weights, count, generator=torch.Generator().manual_seed(0))
    allowed = torch.zeros(rows, rows, dtype=torch.bool).scatter(1, drawn, True).to(z.device)
    loss = info_nce(z, reference, reference, TEMPERATURE, allowed).mean()
    cosines = F.normalize(z.float(), dim=-1) @ F.normalize(reference.float(), dim=-1).T
    return math.log(count + 1) - float(loss), float(cosines[allowed].mean()), count


@torch.no_grad()
def measure(
    adapters: AdapterSlots,
    slots: Sequence[int],
    data: Sequence[Encoded],
    cache: ReferenceCache,
    evals: EvalSpec,
) -> dict[int, Measures]:
    """Measures of each slot on the held-out rows `data`, whose references are in `cache`."""
    losses, pooled = readings(adapters, slots, data, evals.features)
    lengths = torch.tensor([len(one.response) for one in data])
    tokens = int(lengths.sum())
    found = {}
    for slot, loss in losses.items():
        z = pooled[slot, evals.pooling]
        reference = cache.rows(evals.pooling, evals.layer)
        information, negative, count = mutual_information(z, reference)
        reference_there = cache.rows(DECISION, evals.layer)
        decision, _, _ = mutual_information(pooled[slot, DECISION], reference_there)
        cosines = F.cosine_similarity(z, reference, dim=-1)
        found[slot] = Measures(
            eval_loss=float(loss.sum()) / tokens,
            mutual_information=information,
            mutual_information_last_prompt=decision,
            mutual_information_ceiling=math.log(count + 1),
            num_negatives=count,
            cosine=float(cosines.mean()),
            negative_cosine=negative,
            distance=float(adapters.update_norm_sq(slot).sqrt()),
            row_losses=(loss / lengths.to(loss.device)).tolist(),
            row_cosines=cosines.tolist(),
        )
    return found
