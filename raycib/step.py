"""One micro-batch through the model: every forward pass at most once, and only if it is read.

`PackStep` is the micro-batch of a whole pack (rows of several lanes side by side); `Step` is what
one lane's objective sees of it. Objectives never know about packs.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from raycib.adapters import LaneAdapters, Update
from raycib.decoder import Hidden, hidden_states, perturbed
from raycib.models import token_loss
from raycib.pooling import pool, token_states
from raycib.reference import ReferenceBank, read
from raycib.spec import Layer, Pooling, Tokens
from raycib.tensors import Batch, Totals, widen


class PackStep:
    """One micro-batch of the lanes in `batches`, rows grouped by lane in that order.

    `safety` is the micro-batch of the lanes that also draw safety rows; it has passes of its own.
    """

    def __init__(
        self,
        adapters: LaneAdapters,
        batches: Mapping[int, Batch],
        totals: Mapping[int, Totals],
        banks: Mapping[int, ReferenceBank | None],
        safety: "PackStep | None" = None,
    ) -> None:
        width = max(batch.ids.shape[1] for batch in batches.values())
        self.adapters = adapters
        self.batches = {lane: widen(batch, width) for lane, batch in batches.items()}
        self.totals = totals
        self.banks = banks
        self.safety = safety
        self.perturbations: dict[int, Sequence[Tensor]] = {}
        """What is added to the output of each attention block on a lane's rows, by lane."""
        self.ids = torch.cat([batch.ids for batch in self.batches.values()])
        self.labels = torch.cat([batch.labels for batch in self.batches.values()])

    @property
    def rows(self) -> dict[int, slice]:
        """Where each lane's rows are."""
        found, start = {}, 0
        for lane, batch in self.batches.items():
            found[lane] = slice(start, start + len(batch.ids))
            start += len(batch.ids)
        return found

    def steps(self) -> "dict[int, Step]":
        """Each lane's own view."""
        return {lane: Step(self, lane, rows) for lane, rows in self.rows.items()}

    @cached_property
    def hidden(self) -> Hidden:
        """Hidden states of all rows, each through its own lane's adapter."""
        moved = [(self.rows[lane], added) for lane, added in self.perturbations.items()]
        with (
            self.adapters.route([(lane, len(b.ids)) for lane, b in self.batches.items()]),
            perturbed(self.adapters.model, moved),
        ):
            return hidden_states(self.adapters.model, self.ids)

    @cached_property
    def reference_hidden(self) -> Hidden:
        """Hidden states of all rows in the aligned model: the adapters switched off."""
        with torch.no_grad(), self.adapters.disabled():
            return hidden_states(self.adapters.model, self.ids)

    @cached_property
    def nll(self) -> Float[Tensor, "rows seq"]:
        """-log p of each scored token, in nats, at the token's own place; 0 elsewhere."""
        scored = self.labels >= 0
        states = self.hidden.final_norm[:, :-1][scored[:, 1:]]
        values = token_loss(self.adapters.model, states, self.labels[scored])
        return torch.zeros(self.labels.shape, device=values.device).masked_scatter(scored, values)


class Slices(NamedTuple):
    """One module's part of a lane's adapter: what is trained, and what is frozen below it."""

    a: Float[Tensor, "rank in_dim"]
    b: Float[Tensor, "out_dim rank"]
    frozen_a: Float[Tensor, "frozen in_dim"] | None
    frozen_b: Float[Tensor, "out_dim frozen"] | None


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
    def share(self) -> float:
        """Of the effective batch's rows that are here: a term that has no rows of its own counts
        by it, so that it counts once a step."""
        return len(self.batch.ids) / self.totals.rows

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

    def states(self, which: Tokens) -> Float[Tensor, "tokens dim"]:
        """Final hidden states that predict the rows' tokens, in the model being trained."""
        return token_states(self._pack.hidden.final_norm[self._rows], self.batch, which)

    def reference(self, pooling: Pooling, layer: Layer) -> Float[Tensor, "rows dim"]:
        """zref: the same rows in the aligned model, from the cache where there is one."""
        bank = self._pack.banks.get(self._lane)
        if bank is not None:
            return bank.rows(pooling, layer)[self.batch.examples]
        return self._read((pooling, layer))

    def reference_tokens(self, which: Tokens) -> Float[Tensor, "tokens *dim"]:
        """What the aligned model has at the same rows' tokens: states, or -log p of each."""
        bank = self._pack.banks.get(self._lane)
        if bank is not None:
            return bank.tokens((which, "final_norm"), self.batch.examples)
        return self._read((which, "final_norm"))

    def _read(self, reading: tuple[Pooling | Tokens, Layer]) -> Tensor:
        hidden = getattr(self._pack.reference_hidden, reading[1])[self._rows]
        with torch.no_grad():
            return read(self._pack.adapters, hidden, self.batch, reading)

    def reference_mean(self, pooling: Pooling, layer: Layer) -> Float[Tensor, " dim"]:
        """Mean of zref over the whole task; needs the cache, since no batch knows the task."""
        bank = self._pack.banks.get(self._lane)
        if bank is None:
            raise ValueError("the task's mean reference is only known from cached references")
        return bank.rows(pooling, layer).mean(dim=0)

    @property
    def dim(self) -> int:
        """Hidden size."""
        return self._pack.adapters.model.config.hidden_size

    @property
    def model(self) -> torch.nn.Module:
        """The base model, for its output head."""
        return self._pack.adapters.model

    @property
    def slices(self) -> dict[str, Slices]:
        """The lane's adapter, module by module."""
        found = {}
        for name, module in self._pack.adapters.modules_of(self._lane).items():
            a, b = module.lora_A[str(self._lane)], module.lora_B[str(self._lane)]
            frozen_a, frozen_b, _ = module.frozen.get(self._lane, (None, None, None))
            found[name] = Slices(a, b, frozen_a, frozen_b)
        return found

    @property
    def updates(self) -> dict[str, Update]:
        """What is added to the aligned model now, module by module."""
        return self._pack.adapters.updates(self._lane)

    @property
    def update_norm_sq(self) -> Float[Tensor, ""]:
        """Squared Frobenius norm of the effective update over all adapted layers."""
        return self._pack.adapters.update_norm_sq(self._lane)

    @property
    def safety(self) -> "Step | None":
        """The lane's safety rows of this micro-batch, if it has any."""
        pack = self._pack.safety
        return pack.steps().get(self._lane) if pack else None

    def alone(self, perturbation: Sequence[Tensor] = ()) -> "Step":
        """The same rows in a forward pass of their own, with something added to the output of
        each attention block."""
        pack = self._pack
        own = PackStep(pack.adapters, {self._lane: self.batch}, pack.totals, pack.banks)
        if perturbation:
            own.perturbations[self._lane] = perturbation
        return own.steps()[self._lane]

    def perturb(self, perturbation: Sequence[Tensor]) -> None:
        """Have the coming forward pass add something to each attention block's output."""
        if "hidden" in self._pack.__dict__:
            raise RuntimeError("these rows went through the model before they were perturbed")
        self._pack.perturbations[self._lane] = perturbation
