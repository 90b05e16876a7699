"""The order in which a stage meets its rows."""

from collections.abc import Sequence

import torch

from raycib.data.chat import Encoded
from raycib.models.reference import ReferenceCache
from raycib.models.tensors import Totals
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
        self._seed, self._size, self._purpose = seed, min(batch_size, len(data)), purpose
        self._epoch, self._order = -1, torch.zeros(0, dtype=torch.long)

    def rows(self, step: int) -> list[int]:
        """Examples of the effective batch of optimiser step `step`, from 0; the last one of an
        epoch may be short."""
        epoch, place = divmod(step, -(-len(self.data) // self._size))
        if epoch != self._epoch:
            drawn = generator(self._seed, self._purpose, epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.data), generator=drawn)
        return self._order[place * self._size : (place + 1) * self._size].tolist()

    def totals(self, rows: Sequence[int]) -> Totals:
        """Size of an effective batch."""
        chosen = [self.data[i] for i in rows]
        return Totals(
            rows=len(chosen),
            tokens=sum(len(one.response) for one in chosen),
            predicted=sum(len(one) - 1 for one in chosen),
        )
