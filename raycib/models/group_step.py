"""One micro-batch through the model: every forward pass at most once, and only if it is read.

`GroupStep` is the micro-batch of a whole group, rows of several slots side by side. What is made of
all of them at once is made once, and then parted; `raycib.models.step` has each slot's view of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from raycib.config import Feature, Layer, Pooling, Tokens
from raycib.config.base import READ_PROMPTS
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
from raycib.models.pooling import held_at, pool, states_at, token_states
from raycib.models.reference import ReferenceCache, is_of_tokens, read
from raycib.models.tensors import Batch, Totals, sent, to_device


class GroupStep:
    """One micro-batch of slots: `host` has their rows, so many of each as `rows` says, in that
    order, and `batch` the same where the model is. Lengths and places are read off the first, so
    that the host never waits for a GPU to tell them.

    `safety` is the micro-batch of the slots that also draw safety rows; it has passes of its own.
    With `stacked` gradients are those of `AdapterSlots.trained`.
    `packed` rows lie end to end on one token axis: nothing of a pass is padding.
    Unless somebody `reads_prompts`, no state of a prompt but its last one is made.
    """

    def __init__(
        self,
        adapters: AdapterSlots,
        host: Batch,
        rows: Mapping[int, int],
        totals: Mapping[int, Totals],
        caches: Mapping[int, ReferenceCache | None],
        safety: "GroupStep | None" = None,
        stacked: bool = False,
        packed: bool = False,
        reads_prompts: bool = True,
    ) -> None:
        self.adapters, self.host, self.rows = adapters, host, rows
        self.batch = to_device(host, adapters.model.device)
        self.totals, self.caches, self.safety = totals, caches, safety
        self.stacked, self.packed, self.reads_prompts = stacked, packed, reads_prompts
        self.perturbations: dict[int, Sequence[Tensor]] = {}
        """What is added to the output of each attention block on a slot's rows, by slot."""
        self._parted: dict[object, dict[int, Tensor]] = {}

    @cached_property
    def batches(self) -> dict[int, Batch]:
        """Each slot's rows."""
        return self._by_slot(self.batch)

    @cached_property
    def host_batches(self) -> dict[int, Batch]:
        """The same on the host."""
        return self._by_slot(self.host)

    def _by_slot(self, batch: Batch) -> dict[int, Batch]:
        return dict(zip(self.rows, batch.split(list(self.rows.values())), strict=True))

    def _sent(self, tensor: Tensor) -> Tensor:
        return sent(tensor, self.batch.ids.device)

    @cached_property
    def held(self) -> Bool[Tensor, "rows seq"] | None:
        """Positions that have a state, which lie one after the other; on the host. None: all have
        one, and lie in rows."""
        if not self.reads_prompts:
            return self.host.answering
        return self.host.present if self.packed else None

    @cached_property
    def _lengths(self) -> list[int]:
        return self.host.lengths.tolist()

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
            return packed_states(model, self._sent(self.host.ids[self.host.present]), self._lengths)
        states = hidden_states(model, self.batch.ids)
        return states if self.held is None else Hidden(*(one[0] for one in states))

    @contextmanager
    def _as_laid(self) -> Iterator[None]:
        """With rows apart that lie end to end, and the last layer where it is read."""
        apart, last = nullcontext(), nullcontext()
        if self.packed:
            apart = rows_apart(self.adapters.model, self._lengths)
        if not self.reads_prompts:
            last = last_layer_at(self.adapters.model, self._read_places, self._beyond)
        with apart, last:
            yield

    @cached_property
    def _read_places(self) -> Int[Tensor, " places"]:
        """Where the last layer is read, in all tokens that go through it."""
        answering = self.host.answering
        kept = answering[self.host.present] if self.packed else answering.flatten()
        return self._sent(kept.nonzero()[:, 0])

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
        present = self.host_batches[slot].present.flatten().nonzero()[:, 0]
        return (0, places), [states_at(one, present) for one in added]

    @cached_property
    def reference_hidden(self) -> Hidden:
        """Hidden states of all rows in the aligned model: the adapters switched off."""
        with torch.no_grad(), self.adapters.disabled(), self._as_laid():
            return self._states()

    @cached_property
    def nll(self) -> Float[Tensor, "rows seq"]:
        """-log p of each scored token, in nats, at the token's own place; 0 elsewhere."""
        labels = self.host.labels.flatten()
        scored = (labels >= 0).nonzero()[:, 0]
        before = held_at(scored - 1, self.held)  # no row's first token is scored
        states = states_at(self.hidden.final_norm, before)
        values = token_loss(self.adapters.model, states, self._sent(labels[scored]))
        nothing = torch.zeros(labels.shape, device=values.device)
        return nothing.index_copy(0, self._sent(scored), values).view(self.host.labels.shape)

    @cached_property
    def row_loss(self) -> Float[Tensor, " rows"]:
        """Mean over each row's scored tokens, in nats."""
        return self.nll.sum(dim=1) / self.batch.predicting.sum(dim=1).clamp(min=1)

    def pooled(self, pooling: Pooling, layer: Layer) -> dict[int, Float[Tensor, "rows dim"]]:
        """Representations of rows in the model being trained, by slot."""
        self._check_read(pooling)
        return self.parted(
            (pooling, layer),
            lambda: pool(getattr(self.hidden, layer), self.host, pooling, self.held),
        )

    def states(self, which: Tokens) -> dict[int, Float[Tensor, "tokens dim"]]:
        """Final hidden states of tokens in the model being trained, by slot."""
        self._check_read(which)
        return self.parted(
            which,
            lambda: token_states(self.hidden.final_norm, self.host, which, self.held),
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
                self.adapters, getattr(self.reference_hidden, layer), self.host, feature, self.held
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
        host = self.host
        chosen = host.feature if which == "all_states" else host.predicting
        return self._of_slots(chosen.sum(dim=1).tolist())

    def _check_read(self, what: Pooling | Tokens) -> None:
        if what in READ_PROMPTS and not self.reads_prompts:
            raise RuntimeError(
                f"{what!r} reads states of prompts, which were not made: an objective that does "
                "says so, by `reads_prompts`"
            )
