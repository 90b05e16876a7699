"""The order in which a stage meets its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from raycib.data.chat import Encoded
from raycib.models.reference import ReferenceCache
from raycib.models.tensors import Batch, Totals, padded
from raycib.randomness import generator


class BatchSampler:
    """Batches of one set of rows: each epoch is a permutation drawn from the seed."""

    def __init__(
        self,
        data: Sequence[Encoded],
        cache: ReferenceCache | None,
        seed: int,
        batch_size: int,
        purpose: str = "order",
    ) -> None:
        self.data, self.cache = data, cache
        self._seed, self._size, self._purpose = seed, batch_size, purpose
        self._epoch, self._order = -1, torch.zeros(0, dtype=torch.long)

    def rows(self, step: int) -> list[int]:
        """Examples of the effective batch of optimiser step `step`, from 0; the last one of an
        epoch may be short."""
        epoch, place = divmod(step, -(-len(self.data) // self._size))
        if epoch != self._epoch:
            drawn = generator(self._seed, self._purpose, epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.data), generator=drawn)
        return self._order[place * self._size : (place + 1) * self._size].tolist()

    def batch(self, step: int) -> "EffectiveBatch":
        """The rows of an optimiser step, in their order."""
        return EffectiveBatch(self, self.rows(step))


@dataclass(frozen=True)
class EffectiveBatch:
    """All rows of one slot's optimiser step, however they are dealt."""

    sampler: BatchSampler
    rows: Sequence[int]
    """Examples, in the order in which they are drawn."""

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(self.sampler.data[i]) for i in self.rows]

    @cached_property
    def totals(self) -> Totals:
        """Its size."""
        return Totals(
            rows=len(self.rows),
            tokens=sum(len(self.sampler.data[i].response) for i in self.rows),
            predicted=sum(self.lengths) - len(self.rows),
        )


def rows_at(
    slots: Mapping[int, EffectiveBatch], places: Mapping[int, Sequence[int]]
) -> tuple[Batch, dict[int, int]]:
    """The rows of slots at these places of their effective batches, and how many each has."""
    drawn = [(slots[slot], place) for slot, own in places.items() for place in own]
    examples = [one.rows[place] for one, place in drawn]
    rows = [one.sampler.data[row] for (one, _), row in zip(drawn, examples, strict=True)]
    batch = padded(rows, examples, [place for _, place in drawn])
    return batch, {slot: len(own) for slot, own in places.items()}
