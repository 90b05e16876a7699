"""One micro-batch through the model: every forward pass at most once, and only if it is read.

`PackStep` is the micro-batch of a whole pack (rows of several lanes side by side); `Step` is what
one lane's objective sees of it. Objectives never know about packs.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from raycib.adapters import LaneAdapters
from raycib.models import Hidden, hidden_states
from raycib.pooling import pool
from raycib.reference import ReferenceBank
from raycib.spec import Layer, Pooling
from raycib.tensors import Batch, Totals, widen

LOGITS_AT_ONCE = 2**26
"""Entries of the logits held at a time (256 MB in float32); more are recomputed in the backward
pass, a chunk of tokens after the other."""


class PackStep:
    """One micro-batch of the lanes in `batches`, rows grouped by lane in that order."""

    def __init__(
        self,
        adapters: LaneAdapters,
        batches: Mapping[int, Batch],
        totals: Mapping[int, Totals],
        banks: Mapping[int, ReferenceBank | None],
    ) -> None:
        width = max(batch.ids.shape[1] for batch in batches.values())
        self.adapters = adapters
        self.batches = {lane: widen(batch, width) for lane, batch in batches.items()}
        self.totals = totals
        self.banks = banks
        self.ids = torch.cat([batch.ids for batch in self.batches.values()])
        self.labels = torch.cat([batch.labels for batch in self.batches.values()])

    def steps(self) -> "dict[int, Step]":
        """Each lane's own view."""
        views, start = {}, 0
        for lane, batch in self.batches.items():
            views[lane] = Step(self, lane, slice(start, start + len(batch.ids)))
            start += len(batch.ids)
        return views

    @cached_property
    def hidden(self) -> Hidden:
        """Hidden states of all rows, each through its own lane's adapter."""
        with self.adapters.route([(lane, len(b.ids)) for lane, b in self.batches.items()]):
            return hidden_states(self.adapters.model, self.ids)

    @cached_property
    def reference_hidden(self) -> Hidden:
        """Hidden states of all rows in the aligned model: the adapters switched off."""
        with torch.no_grad(), self.adapters.disabled():
            return hidden_states(self.adapters.model, self.ids)

    @cached_property
    def nll(self) -> Float[Tensor, "rows seq"]:
        """-log p of each scored token, in nats, at the token's own place; 0 elsewhere."""
        scored = torch.zeros_like(self.labels, dtype=torch.bool)
        scored[:, 1:] = self.labels[:, 1:] >= 0
        states = self.hidden.final_norm[:, :-1][scored[:, 1:]]
        head: Any = self.adapters.model.get_output_embeddings()
        tokens = max(1, LOGITS_AT_ONCE // head.weight.shape[0])
        values = token_loss(head, states, self.labels[scored], tokens)
        return torch.zeros(self.labels.shape, device=values.device).masked_scatter(scored, values)


def token_loss(
    head: torch.nn.Module,
    states: Float[Tensor, "tokens dim"],
    labels: Tensor,
    at_once: int,
) -> Float[Tensor, " tokens"]:
    """Cross-entropy of each token in float32; only scored tokens ever meet the output head."""

    def loss(part: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(head(part).float(), target, reduction="none")

    if len(states) <= at_once:
        return loss(states, labels)
    parts = zip(states.split(at_once), labels.split(at_once), strict=True)
    return torch.cat([checkpoint(loss, *part, use_reentrant=False) for part in parts])  # type: ignore[misc]


class Step:
    """One lane's rows of one micro-batch."""

    def __init__(self, pack: PackStep, lane: int, rows: slice) -> None:
        self._pack, self._lane, self._rows = pack, lane, rows

    @property
    def batch(self) -> Batch:
        """The lane's rows."""
        return self._pack.batches[self._lane]

    @property
    def totals(self) -> Totals:
        """Size of the lane's effective batch."""
        return self._pack.totals[self._lane]

    @property
    def nll(self) -> Float[Tensor, "rows seq"]:
        """-log p of each scored token, in nats, at the token's own place; 0 elsewhere."""
        return self._pack.nll[self._rows]

    @property
    def row_loss(self) -> Float[Tensor, " rows"]:
        """Mean over each row's scored tokens, in nats."""
        return self.nll.sum(dim=1) / self.batch.predicting.sum(dim=1).clamp(min=1)

    def pooled(self, pooling: Pooling, layer: Layer) -> Float[Tensor, "rows dim"]:
        """z: the rows' representations in the model being trained."""
        return pool(getattr(self._pack.hidden, layer)[self._rows], self.batch, pooling)

    def reference(self, pooling: Pooling, layer: Layer) -> Float[Tensor, "rows dim"]:
        """zref: the same rows in the aligned model, from the cache where there is one."""
        bank = self._pack.banks.get(self._lane)
        if bank is not None:
            return bank.rows(pooling, layer)[self.batch.examples]
        return pool(getattr(self._pack.reference_hidden, layer)[self._rows], self.batch, pooling)

    def reference_mean(self, pooling: Pooling, layer: Layer) -> Float[Tensor, " dim"]:
        """Mean of zref over the whole task; needs the cache, since no batch knows the task."""
        bank = self._pack.banks.get(self._lane)
        if bank is None:
            raise ValueError("the task's mean reference is only known from cached references")
        return bank.rows(pooling, layer).mean(dim=0)
