"""One micro-batch through the model: every forward pass at most once, and only if it is read.

`GroupStep` is the micro-batch of a whole group (rows of several slots side by side); `Step` is what
one slot's objective sees of it. Objectives never know about groups.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from raycib.config import Layer, Pooling, Tokens
from raycib.models.adapters import AdapterSlots, Update
from raycib.models.decoder import (
    Hidden,
    Places,
    checkpointed,
    hidden_states,
    packed_states,
    perturbed,
)
from raycib.models.head import token_loss
from raycib.models.last_layer import last_layer_at
from raycib.models.packing import rows_apart
from raycib.models.pooling import pool, token_states
from raycib.models.reference import ReferenceCache, read
from raycib.models.tensors import Batch, Totals, widen

READ_PROMPTS = ("mean_all", "all_states")
"""Readings of more than the last state of a prompt."""


class GroupStep:
    """One micro-batch of the slots in `batches`, rows grouped by slot in that order.

    `safety` is the micro-batch of the slots that also draw safety rows; it has passes of its own.
    With `stacked` gradients are those of `AdapterSlots.trained`.
    `packed` rows lie end to end on one token axis: nothing of a pass is padding.
    Unless somebody `reads_prompts`, no state of a prompt but its last one is made.
    """

    def __init__(
        self,
        adapters: AdapterSlots,
        batches: Mapping[int, Batch],
        totals: Mapping[int, Totals],
        caches: Mapping[int, ReferenceCache | None],
        safety: "GroupStep | None" = None,
        stacked: bool = False,
        packed: bool = False,
        reads_prompts: bool = True,
    ) -> None:
        self.adapters = adapters
        self.batches = dict(batches)
        if not packed:
            width = max(batch.ids.shape[1] for batch in batches.values())
            self.batches = {slot: widen(batch, width) for slot, batch in batches.items()}
        self.totals = totals
        self.caches = caches
        self.safety = safety
        self.stacked, self.packed, self.reads_prompts = stacked, packed, reads_prompts
        self.perturbations: dict[int, Sequence[Tensor]] = {}
        """What is added to the output of each attention block on a slot's rows, by slot."""
        self._parts: dict[str, dict[int, Tensor]] = {}
        self.ids = self._together([batch.ids for batch in self.batches.values()])
        self.labels = self._together([batch.labels for batch in self.batches.values()])

    def _together(self, parts: Sequence[Tensor]) -> Tensor:
        """The slots' (rows seq) tensors as one: (rows seq), or (tokens) of packed rows."""
        if self.packed:
            parts = [one[there] for one, there in zip(parts, self.present.values(), strict=True)]
        return torch.cat(list(parts))

    @cached_property
    def present(self) -> dict[int, Tensor]:
        """Each slot's positions (rows seq) that hold a token."""
        return {slot: batch.present for slot, batch in self.batches.items()}

    @cached_property
    def held(self) -> dict[int, Tensor] | None:
        """Each slot's positions (rows seq) that have a state, which lie one after the other. None:
        all have one, and lie in rows."""
        if not self.reads_prompts:
            return {slot: batch.answering for slot, batch in self.batches.items()}
        return self.present if self.packed else None

    @cached_property
    def places(self) -> dict[int, slice]:
        """Where each slot's rows are in the batch, or its tokens, where rows are packed."""
        found, start = {}, 0
        for slot, batch in self.batches.items():
            size = int(batch.lengths.sum()) if self.packed else len(batch.ids)
            found[slot] = slice(start, start + size)
            start += size
        return found

    def steps(self) -> "dict[int, Step]":
        """Each slot's own view."""
        return {slot: Step(self, slot) for slot in self.batches}

    def _states(self) -> Hidden:
        """What the decoder makes of all rows, as the model is now."""
        model = self.adapters.model
        if self.packed:
            return packed_states(model, self.ids, self._lengths)
        states = hidden_states(model, self.ids)
        return states if self.held is None else Hidden(*(one[0] for one in states))

    @cached_property
    def _lengths(self) -> list[int]:
        return [length for b in self.batches.values() for length in b.lengths.tolist()]

    @cached_property
    def _kept(self) -> Tensor:
        """Whether the last layer gives the state of a token that goes through the model."""
        assert self.held is not None
        return self._together(list(self.held.values())).flatten()

    @cached_property
    def sizes(self) -> list[int]:
        """Rows of each slot, or states, where they lie one after the other."""
        if self.held is None:
            return [len(batch.ids) for batch in self.batches.values()]
        return [int(held.sum()) for held in self.held.values()]

    @contextmanager
    def _as_laid(self) -> Iterator[None]:
        """With rows apart that lie end to end, and the last layer where it is read."""
        apart, last = nullcontext(), nullcontext()
        if self.packed:
            apart = rows_apart(self.adapters.model, self._lengths)
        if not self.reads_prompts:
            last = last_layer_at(self.adapters.model, self._kept.nonzero()[:, 0], self._beyond)
        with apart, last:
            yield

    def _beyond(self) -> AbstractContextManager[None]:
        return self.adapters.route(list(zip(self.batches, self.sizes, strict=True)), self.stacked)

    @cached_property
    def hidden(self) -> Hidden:
        """Hidden states of all rows, each through its own slot's adapter."""
        model = self.adapters.model
        owners = [(slot, here.stop - here.start) for slot, here in self.places.items()]
        moved = [self._moved(slot, added) for slot, added in self.perturbations.items()]

        @contextmanager
        def within() -> Iterator[None]:
            routed = self.adapters.route(owners, self.stacked)
            with self._as_laid(), routed, perturbed(model, moved):
                yield

        again = checkpointed(model, within) if self.adapters.checkpointed else nullcontext()
        with within(), again:
            return self._states()

    def _moved(self, slot: int, added: Sequence[Tensor]) -> tuple[Places, Sequence[Tensor]]:
        if not self.packed:
            return self.places[slot], added
        return (0, self.places[slot]), [one[self.present[slot]] for one in added]

    @cached_property
    def reference_hidden(self) -> Hidden:
        """Hidden states of all rows in the aligned model: the adapters switched off."""
        with torch.no_grad(), self.adapters.disabled(), self._as_laid():
            return self._states()

    def parts(self, what: str) -> dict[int, Tensor]:
        """`nll`, or a layer of `hidden`, by slot. All at once: of as many slices the backward pass
        would make as many tensors of the whole batch's size."""
        if what not in self._parts:
            whole = self.nll if what == "nll" else getattr(self.hidden, what)
            sizes = [here.stop - here.start for here in self.places.values()]
            parts = whole.split(sizes if what == "nll" else self.sizes)
            self._parts[what] = dict(zip(self.places, parts, strict=True))
        return self._parts[what]

    @cached_property
    def nll(self) -> Float[Tensor, "*places"]:
        """-log p of each scored token, in nats, at the token's own place; 0 elsewhere."""
        scored = self.labels >= 0
        # No row's first token is scored, so none is predicted by the row before.
        before = scored.flatten().nonzero()[:, 0] - 1
        if not self.reads_prompts:
            before = (self._kept.cumsum(0) - 1)[before]
        states = self.hidden.final_norm.flatten(0, -2).index_select(0, before)
        values = token_loss(self.adapters.model, states, self.labels[scored])
        return torch.zeros(self.labels.shape, device=values.device).masked_scatter(scored, values)


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
        return len(self.batch.ids) / self.totals.rows

    @property
    def nll(self) -> Float[Tensor, "rows seq"]:
        """-log p of each scored token, in nats, at the token's own place; 0 elsewhere."""
        own = self._group.parts("nll")[self._slot]
        if not self._group.packed:
            return own
        present = self._group.present[self._slot]
        return torch.zeros(present.shape, device=own.device).masked_scatter(present, own)

    @property
    def row_loss(self) -> Float[Tensor, " rows"]:
        """Mean over each row's scored tokens, in nats."""
        return self.nll.sum(dim=1) / self.batch.predicting.sum(dim=1).clamp(min=1)

    def pooled(self, pooling: Pooling, layer: Layer) -> Float[Tensor, "rows dim"]:
        """z: the rows' representations in the model being trained."""
        return pool(self._group.parts(layer)[self._slot], self.batch, pooling, self._held(pooling))

    def states(self, which: Tokens) -> Float[Tensor, "tokens dim"]:
        """Final hidden states that predict the rows' tokens, in the model being trained."""
        states = self._group.parts("final_norm")[self._slot]
        return token_states(states, self.batch, which, self._held(which))

    def _held(self, what: Pooling | Tokens) -> Tensor | None:
        if what in READ_PROMPTS and not self._group.reads_prompts:
            raise RuntimeError(
                f"{what!r} reads states of prompts, which were not made: an objective that does "
                "says so, by `reads_prompts`"
            )
        return self._group.held[self._slot] if self._group.held is not None else None

    def reference(self, pooling: Pooling, layer: Layer) -> Float[Tensor, "rows dim"]:
        """zref: the same rows in the aligned model, from the cache where there is one."""
        cache = self._group.caches.get(self._slot)
        if cache is not None:
            return cache.rows(pooling, layer)[self.batch.examples]
        return self._read((pooling, layer))

    def reference_tokens(self, which: Tokens) -> Float[Tensor, "tokens *dim"]:
        """What the aligned model has at the same rows' tokens: states, or -log p of each."""
        cache = self._group.caches.get(self._slot)
        if cache is not None:
            return cache.tokens((which, "final_norm"), self.batch.examples)
        return self._read((which, "final_norm"))

    def _read(self, feature: tuple[Pooling | Tokens, Layer]) -> Tensor:
        group, held = self._group, self._held(feature[0])
        whole = getattr(group.reference_hidden, feature[1])
        hidden = whole.split(group.sizes)[list(group.batches).index(self._slot)]
        with torch.no_grad():
            return read(group.adapters, hidden, self.batch, feature, held)

    def reference_mean(self, pooling: Pooling, layer: Layer) -> Float[Tensor, " dim"]:
        """Mean of zref over the whole task; needs the cache, since no batch knows the task."""
        cache = self._group.caches.get(self._slot)
        if cache is None:
            raise ValueError("the task's mean reference is only known from cached references")
        return cache.rows(pooling, layer).mean(dim=0)

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
        return group.steps().get(self._slot) if group else None

    def alone(self, perturbation: Sequence[Tensor] = ()) -> "Step":
        """The same rows in a forward pass of their own, with something added to the output of
        each attention block."""
        group = self._group
        batches = {self._slot: self.batch}
        own = GroupStep(
            group.adapters, batches, group.totals, group.caches,
            packed=group.packed, reads_prompts=group.reads_prompts,
        )  # fmt: skip
        if perturbation:
            own.perturbations[self._slot] = perturbation
        return own.steps()[self._slot]

    def perturb(self, perturbation: Sequence[Tensor]) -> None:
        """Have the coming forward pass add something to each attention block's output."""
        if "hidden" in self._group.__dict__:
            raise RuntimeError("these rows went through the model before they were perturbed")
        self._group.perturbations[self._slot] = perturbation
