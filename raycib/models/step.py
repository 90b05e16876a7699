"""What one slot's objective sees of a micro-batch. Objectives never know about groups."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from raycib.config import Layer, Pooling, Tokens
from raycib.models.adapters import Update
from raycib.models.group_step import GroupStep
from raycib.models.reference import ReferenceCache
from raycib.models.tensors import Batch, Totals


class Slices(NamedTuple):
    """One module's part of a slot's adapter: what is trained, and what is frozen below it."""

    a: Float[Tensor, "rank in_dim"]
    b: Float[Tensor, "out_dim rank"]
    frozen_a: Float[Tensor, "frozen in_dim"] | None
    frozen_b: Float[Tensor, "out_dim frozen"] | None


class Step:
    """One slot's rows of one micro-batch."""

    def __init__(self, group: GroupStep, slot: int) -> None:
        self._group, self._slot = group, slot

    @property
    def batch(self) -> Batch:
        """The slot's rows."""
        return self._group.batches[self._slot]

    @property
    def totals(self) -> Totals:
        """Size of the slot's effective batch."""
        return self._group.totals[self._slot]

    @property
    def share(self) -> float:
        """Of the effective batch's rows that are here: a term that has no rows of its own counts
        by it, so that it counts once a step."""
        return self._group.rows[self._slot] / self.totals.rows

    @property
    def nll(self) -> Float[Tensor, "rows seq"]:
        """-log p of each scored token, in nats, at the token's own place; 0 elsewhere."""
        return self._group.parted("nll", lambda: self._group.nll)[self._slot]

    @property
    def row_loss(self) -> Float[Tensor, " rows"]:
        """Mean over each row's scored tokens, in nats."""
        return self._group.parted("row_loss", lambda: self._group.row_loss)[self._slot]

    def pooled(self, pooling: Pooling, layer: Layer) -> Float[Tensor, "rows dim"]:
        """z: the rows' representations in the model being trained."""
        return self._group.pooled(pooling, layer)[self._slot]

    def states(self, which: Tokens) -> Float[Tensor, "tokens dim"]:
        """Final hidden states that predict the rows' tokens, in the model being trained."""
        return self._group.states(which)[self._slot]

    @property
    def _cache(self) -> ReferenceCache | None:
        return self._group.caches.get(self._slot)

    def reference(self, pooling: Pooling, layer: Layer) -> Float[Tensor, "rows dim"]:
        """zref: the same rows in the aligned model, from the cache where there is one."""
        if self._cache is not None:
            return self._cache.rows(pooling, layer)[self.batch.examples]
        return self._group.reference((pooling, layer))[self._slot]

    def reference_tokens(self, which: Tokens) -> Float[Tensor, "tokens *dim"]:
        """What the aligned model has at the same rows' tokens: states, or -log p of each."""
        if self._cache is not None:
            examples = self._group.host_batches[self._slot].examples
            return self._cache.tokens((which, "final_norm"), examples, self.batch.ids.device)
        return self._group.reference((which, "final_norm"))[self._slot]

    def reference_mean(self, pooling: Pooling, layer: Layer) -> Float[Tensor, " dim"]:
        """Mean of zref over the whole task; needs the cache, since no batch knows the task."""
        if self._cache is None:
            raise ValueError("the task's mean reference is only known from cached references")
        return self._cache.rows(pooling, layer).mean(dim=0)

    @property
    def dim(self) -> int:
        """Hidden size."""
        return self._group.adapters.model.config.hidden_size

    @property
    def model(self) -> torch.nn.Module:
        """The base model, for its output head."""
        return self._group.adapters.model

    @property
    def slices(self) -> dict[str, Slices]:
        """The slot's adapter, module by module."""
        found = {}
        for name, module in self._group.adapters.modules_of(self._slot).items():
            a, b = module.lora_A[str(self._slot)], module.lora_B[str(self._slot)]
            frozen_a, frozen_b, _ = module.frozen.get(self._slot, (None, None, None))
            found[name] = Slices(a, b, frozen_a, frozen_b)
        return found

    @property
    def updates(self) -> dict[str, Update]:
        """What is added to the aligned model now, module by module."""
        return self._group.adapters.updates(self._slot)

    @property
    def update_norm_sq(self) -> Float[Tensor, ""]:
        """Squared Frobenius norm of the effective update over all adapted layers."""
        return self._group.adapters.update_norm_sq(self._slot)

    @property
    def safety(self) -> "Step | None":
        """The slot's safety rows of this micro-batch, if it has any."""
        group = self._group.safety
        return Step(group, self._slot) if group and self._slot in group.rows else None

    def alone(self, perturbation: Sequence[Tensor] = ()) -> "Step":
        """The same rows in a forward pass of their own, with something added to the output of
        each attention block."""
        group = self._group
        own = GroupStep(
            group.adapters, group.host_batches[self._slot], {self._slot: group.rows[self._slot]},
            group.totals, group.caches, packed=group.packed, reads_prompts=group.reads_prompts,
        )  # fmt: skip
        if perturbation:
            own.perturbations[self._slot] = perturbation
        return Step(own, self._slot)

    def perturb(self, perturbation: Sequence[Tensor]) -> None:
        """Have the coming forward pass add something to each attention block's output."""
        if "hidden" in self._group.__dict__:
            raise RuntimeError("these rows went through the model before they were perturbed")
        self._group.perturbations[self._slot] = perturbation


def steps_of(group: GroupStep) -> dict[int, Step]:
    """Each slot's own view."""
    return {slot: Step(group, slot) for slot in group.rows}
