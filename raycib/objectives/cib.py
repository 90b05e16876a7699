"""The contrastive loss of the Conditional Information Bottleneck (CIB paper, section 4)."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from raycib.models.step import Step
from raycib.models.tensors import sent
from raycib.objectives import LossTerm, LossTerms, Objective, Observations
from raycib.objectives.queue import NegativeQueue

if TYPE_CHECKING:  # a method makes what is here, and is no part of it
    from raycib.methods.cib import CIB

ROUNDING = 1e-6
"""Of a float32 cosine of two vectors that are equal but for rounding: at most this far from 1."""


def info_nce(
    z: Float[Tensor, "rows dim"],
    positive: Float[Tensor, "rows dim"],
    negatives: Float[Tensor, "negatives dim"],
    temperature: float,
    allowed: Bool[Tensor, "rows negatives"] | None = None,
) -> Float[Tensor, " rows"]:
    """InfoNCE with cosine similarity, one value a row, in nats (Eq. 15):
    -log(e^{cos(z, z+)/tau} / (e^{cos(z, z+)/tau} + sum_j e^{cos(z, n_j)/tau})).

    In float32 whatever comes in, under autocast as well: in bfloat16 1 - cos of two different
    vectors can be zero. A row with no allowed negative costs nothing.
    """
    z, positive, negatives = (F.normalize(v.float(), dim=-1) for v in (z, positive, negatives))
    own = (z * positive).sum(dim=-1, keepdim=True) / temperature
    others = _products(z, negatives) / temperature
    if allowed is not None:
        others = others.masked_fill(~allowed, -torch.inf)
    return torch.cat([own, others], dim=-1).logsumexp(dim=-1) - own.squeeze(-1)


def _products(
    rows: Float[Tensor, "rows dim"], others: Float[Tensor, "others dim"]
) -> Float[Tensor, "rows others"]:
    """Of each pair, in float32: autocast would round both sides to bfloat16."""
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ others.T


def hardness(
    z: Float[Tensor, "rows dim"],
    reference: Float[Tensor, "rows dim"],
    loss: Float[Tensor, " rows"],
) -> Float[Tensor, " rows"]:
    """h_i = (1 - cos(z_i, zref_i)) * loss_i (Eq. 16). 1 - cos within `ROUNDING` of 0 counts as 0:
    rows that have not moved are equally hard, and noise must not rank them. `loss` is per token,
    else h would rank rows by length."""
    drift = 1 - F.cosine_similarity(z.float(), reference.float(), dim=-1)
    return drift.where(drift > ROUNDING, 0) * loss.float()


class ContrastiveBottleneck(Objective):
    """Mean InfoNCE of a batch's rows against negatives from the queue; weight lambda.

    Gradient flows into z alone. The term is absent until the queue holds K rows. With K = 0 it is
    the mean of 1 - cos(z, zref) from the first step on: the anchor without any contrast.

    Deviations from the paper: it states four different selection rules and three numbers of
    negatives; each is an option of `CIB`, and the defaults are Eq. 16 for the queue and a
    uniform draw from it, negatives as the aligned model sees them.
    """

    def __init__(self, options: "CIB", dim: int) -> None:
        super().__init__()
        self.options = options
        self.reads_prompts = options.pooling == "mean_all"
        self.queue = NegativeQueue(options.queue_size, dim, options.queue)
        self._candidates = torch.zeros(0, dtype=torch.long)
        self._seen: list[Observations] = []

    def begin_step(self, step: int, generator: torch.Generator) -> None:
        self._seen = []
        if self.options.max_age is not None:
            self.queue.expire(step - self.options.max_age)
        held, wanted = len(self.queue), self.options.num_negatives
        match self.options.draw:
            case _ if held < wanted:
                chosen = torch.zeros(0, dtype=torch.long)
            case "uniform":
                chosen = self.queue.by_age()[torch.randperm(held, generator=generator)[:wanted]]
            case "hardest":
                chosen = self.queue.hardness[:held].argsort(descending=True, stable=True)[:wanted]
            case "most_similar" | "semihard":  # chosen per row, in `_allowed`
                chosen = torch.arange(held)
        self._candidates = sent(chosen, self.queue.example.device)

    def forward(self, step: Step) -> LossTerms:
        options = self.options
        z = step.pooled(options.pooling, options.layer)
        reference = step.reference(options.pooling, options.layer)
        if options.center:  # before every cosine, those of hardness included
            mean = step.reference_mean(options.pooling, options.layer)
            z, reference = z - mean, reference - mean
        if not options.num_negatives:
            anchor = 1 - F.cosine_similarity(z, reference, dim=-1)
            return {"contrast": LossTerm(anchor.sum() / step.totals.rows, options.lam)}
        self._observe(step, z.detach(), reference)
        if not len(self._candidates):
            return {}
        cache = self.queue.reference if options.negatives == "reference" else self.queue.current
        negatives = cache[self._candidates]
        allowed = self._allowed(step, z.detach(), reference, negatives)
        loss = info_nce(z, reference, negatives, options.temperature, allowed)
        return {"contrast": LossTerm(loss.sum() / step.totals.rows, options.lam)}

    def _allowed(
        self,
        step: Step,
        z: Float[Tensor, "rows dim"],
        reference: Float[Tensor, "rows dim"],
        negatives: Float[Tensor, "negatives dim"],
    ) -> Bool[Tensor, "rows negatives"]:
        """Which candidate is a negative of which row."""
        shape = (len(z), len(negatives))
        allowed = torch.ones(shape, dtype=torch.bool, device=z.device)
        if self.options.exclude_self:
            examples = self.queue.example[self._candidates]
            allowed = step.batch.examples[:, None] != examples[None]
        if self.options.draw in ("uniform", "hardest"):
            return allowed
        directions = F.normalize(negatives, dim=-1)
        if self.options.draw == "semihard":
            allowed = allowed & (
                _products(F.normalize(z, dim=-1), directions)
                < F.cosine_similarity(z, reference, dim=-1)[:, None]
            )
        similarity = _products(F.normalize(reference, dim=-1), directions)
        similarity = similarity.masked_fill(~allowed, -torch.inf)
        nearest = similarity.topk(min(self.options.num_negatives, shape[1]), dim=-1).indices
        return allowed & torch.zeros_like(allowed).scatter(1, nearest, True)

    def _observe(
        self, step: Step, z: Float[Tensor, "rows dim"], reference: Float[Tensor, "rows dim"]
    ) -> None:
        loss = step.row_loss.detach()
        self._seen.append(
            {
                "positions": step.batch.positions,
                "example": step.batch.examples,
                "current": z,
                "reference": reference,
                "hardness": hardness(z, reference, loss),
            }
        )

    def observations(self) -> Observations:
        if not self._seen:
            return {}
        return {name: torch.cat([one[name] for one in self._seen]) for name in self._seen[0]}

    def end_step(self, step: int, seen: Observations) -> None:
        if seen:
            self.queue.push(
                step, seen["example"], seen["current"], seen["reference"], seen["hardness"]
            )
