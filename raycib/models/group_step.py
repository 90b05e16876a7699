"""One micro-batch through the model: every forward pass at most once, and only if it is read.

`GroupStep` is the micro-batch of a whole group, rows of several slots side by side. What is made of
all of them at once is made once, and then parted; `raycib.models.step` has each slot's view of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from itertools import accumulate

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from raycib.config import Feature, Layer, Pooling, Tokens
from raycib.models.adapters import AdapterSlots
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
from raycib.models.reference import ReferenceCache, is_of_tokens, read
from raycib.models.tensors import Batch, Totals

READ_PROMPTS = ("mean_all", "all_states")
"""Readings of more than the last state of a prompt."""


class GroupStep:
    """One micro-batch of slots: `batch` has their rows, so many of each as `rows` says, in that
    order.

    `safety` is the micro-batch of the slots that also draw safety rows; it has passes of its own.
    With `stacked` gradients are those of `AdapterSlots.trained`.
    `packed` rows lie end to end on one token axis: nothing of a pass is padding.
    Unless somebody `reads_prompts`, no state of a prompt but its last one is made.
    """

    def __init__(
        self,
        adapters: AdapterSlots,
        batch: Batch,
        rows: Mapping[int, int],
        totals: Mapping[int, Totals],
        caches: Mapping[int, ReferenceCache | None],
        safety: "GroupStep | None" = None,
        stacked: bool = False,
        packed: bool = False,
        reads_prompts: bool = True,
    ) -> None:
        self.adapters, self.batch, self.rows = adapters, batch, rows
        self.totals, self.caches, self.safety = totals, caches, safety
        self.stacked, self.packed, self.reads_prompts = stacked, packed, reads_prompts
        self.perturbations: dict[int, Sequence[Tensor]] = {}
        """What is added to the output of each attention block on a slot's rows, by slot."""
        self._parted: dict[object, dict[int, Tensor]] = {}

    @cached_property
    def batches(self) -> dict[int, Batch]:
        """Each slot's rows."""
        return dict(zip(self.rows, self.batch.split(list(self.rows.values())), strict=True))

    @cached_property
    def held(self) -> Bool[Tensor, "rows seq"] | None:
        """Positions that have a state, which lie one after the other. None: all have one, and lie
        in rows."""
        if not self.reads_prompts:
            return self.batch.answering
        return self.batch.present if self.packed else None

    @cached_property
    def _lengths(self) -> list[int]:
        return self.batch.lengths.tolist()

    def _of_slots(self, counts: Sequence[int]) -> dict[int, int]:
        """Sums over the rows of each slot."""
        ends = [0, *accumulate(self.rows.values())]
        parts = zip(self.rows, ends, ends[1:], strict=False)
        return {slot: sum(counts[start:end]) for slot, start, end in parts}

    @cached_property
    def _owners(self) -> Mapping[int, int]:
        """Rows that each slot has in a pass, or tokens, where rows are packed."""
        return self._of_slots(self._lengths) if self.packed else self.rows

    @cached_property
    def _states_of(self) -> Mapping[int, int]:
        """States that each slot has, where they lie one after the other."""
        assert self.held is not None
        return self._of_slots(self.held.sum(dim=1).tolist())

    def _states(self) -> Hidden:
        """What the decoder makes of all rows, as the model is now."""
        model = self.adapters.model
        if self.packed:
            return packed_states(model, self.batch.ids[self.batch.present], self._lengths)
        states = hidden_states(model, self.batch.ids)
        return states if self.held is None else Hidden(*(one[0] for one in states))

    @contextmanager
    def _as_laid(self) -> Iterator[None]:
        """With rows apart that lie end to end, and the last layer where it is read."""
        apart, last = nullcontext(), nullcontext()
        if self.packed:
            apart = rows_apart(self.adapters.model, self._lengths)
        if not self.reads_prompts:
            answering = self.batch.answering
            kept = answering[self.batch.present] if self.packed else answering.flatten()
            last = last_layer_at(self.adapters.model, kept.nonzero()[:, 0], self._beyond)
        with apart, last:
            yield

    def _beyond(self) -> AbstractContextManager[None]:
        return self.adapters.route(self._states_of, self.stacked)

    @cached_property
    def hidden(self) -> Hidden:
        """Hidden states of all rows, each through its own slot's adapter."""
        model = self.adapters.model
        moved = [self._moved(slot, added) for slot, added in self.perturbations.items()]

        @contextmanager
        def within() -> Iterator[None]:
            routed = self.adapters.route(self._owners, self.stacked)
            with self._as_laid(), routed, perturbed(model, moved):
                yield

        again = checkpointed(model, within) if self.adapters.checkpointed else nullcontext()
        with within(), again:
            return self._states()

    def _moved(self, slot: int, added: Sequence[Tensor]) -> tuple[Places, Sequence[Tensor]]:
        ends = dict(zip(self._owners, accumulate(self._owners.values()), strict=True))
        places = slice(ends[slot] - self._owners[slot], ends[slot])
        if not self.packed:
            return places, added
        return (0, places), [one[self.batches[slot].present] for one in added]

    @cached_property
    def reference_hidden(self) -> Hidden:
        """Hidden states of all rows in the aligned model: the adapters switched off."""
        with torch.no_grad(), self.adapters.disabled(), self._as_laid():
            return self._states()

    @cached_property
    def nll(self) -> Float[Tensor, "rows seq"]:
        """-log p of each scored token, in nats, at the token's own place; 0 elsewhere."""
        labels = self.batch.labels
        scored = labels >= 0
        before = scored.flatten().nonzero()[:, 0] - 1  # no row's first token is scored
        if self.held is not None:
            before = (self.held.flatten().cumsum(0) - 1)[before]
        states = self.hidden.final_norm.flatten(0, -2).index_select(0, before)
        values = token_loss(self.adapters.model, states, labels[scored])
        return torch.zeros(labels.shape, device=values.device).masked_scatter(scored, values)

    @cached_property
    def row_loss(self) -> Float[Tensor, " rows"]:
        """Mean over each row's scored tokens, in nats."""
        return self.nll.sum(dim=1) / self.batch.predicting.sum(dim=1).clamp(min=1)

    def pooled(self, pooling: Pooling, layer: Layer) -> dict[int, Float[Tensor, "rows dim"]]:
        """Representations of rows in the model being trained, by slot."""
        self._check_read(pooling)
        return self.parted(
            (pooling, layer),
            lambda: pool(getattr(self.hidden, layer), self.batch, pooling, self.held),
        )

    def states(self, which: Tokens) -> dict[int, Float[Tensor, "tokens dim"]]:
        """Final hidden states of tokens in the model being trained, by slot."""
        self._check_read(which)
        return self.parted(
            which,
            lambda: token_states(self.hidden.final_norm, self.batch, which, self.held),
            self._tokens_read(which),
        )

    @torch.no_grad()
    def reference(self, feature: Feature) -> dict[int, Float[Tensor, "values *dim"]]:
        """What the aligned model makes of rows or tokens, by slot, in a pass of its own."""
        what, layer = feature
        self._check_read(what)
        return self.parted(
            ("reference", *feature),
            lambda: read(
                self.adapters, getattr(self.reference_hidden, layer), self.batch, feature, self.held
            ),
            self._tokens_read(what) if is_of_tokens(feature) else None,
        )

    def parted(
        self, what: object, make: Callable[[], Tensor], sizes: Mapping[int, int] | None = None
    ) -> dict[int, Tensor]:
        """A tensor of all rows, or of so many values of each slot, made once and parted by slot.
        All at once: of as many slices the backward pass would make as many tensors of its size."""
        if what not in self._parted:
            parts = make().split(list((sizes or self.rows).values()))
            self._parted[what] = dict(zip(self.rows, parts, strict=True))
        return self._parted[what]

    def _tokens_read(self, which: Pooling | Tokens) -> dict[int, int]:
        batch = self.batch
        chosen = batch.feature if which == "all_states" else batch.predicting
        return self._of_slots(chosen.sum(dim=1).tolist())

    def _check_read(self, what: Pooling | Tokens) -> None:
        if what in READ_PROMPTS and not self.reads_prompts:
            raise RuntimeError(
                f"{what!r} reads states of prompts, which were not made: an objective that does "
                "says so, by `reads_prompts`"
            )
