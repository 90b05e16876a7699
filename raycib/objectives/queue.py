"""The memory of hard rows that CIB draws its negatives from (CIB paper, section 4.4)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

FREE = -1
"""Example index of an unused slot."""


class NegativeQueue(nn.Module):
    """At most `size` rows, each with both representations, its hardness and its age.

    `hardest` keeps the `size` hardest of all rows ever pushed (a priority queue; of equals, the
    one pushed first); `recent` keeps the last ones pushed. Slots are ordered by that rule, best
    first. All state is in buffers: a checkpoint of the state dict resumes exactly.
    """

    reference: Float[Tensor, "size dim"]
    current: Float[Tensor, "size dim"]
    example: Int[Tensor, " size"]
    hardness: Float[Tensor, " size"]
    pushed: Int[Tensor, " size"]

    def __init__(self, size: int, dim: int, keep: str = "hardest") -> None:
        super().__init__()
        self.keep = keep
        self.register_buffer("reference", torch.zeros(size, dim))
        self.register_buffer("current", torch.zeros(size, dim))
        self.register_buffer("example", torch.full((size,), FREE))
        self.register_buffer("hardness", torch.zeros(size))
        self.register_buffer("pushed", torch.zeros(size, dtype=torch.long))

    def __len__(self) -> int:
        return int((self.example != FREE).sum())

    def by_age(self) -> Int[Tensor, " held"]:
        """Used slots, oldest row first; two rows of nearly equal hardness may swap slots by
        rounding, but never places here."""
        held = len(self)
        examples = self.example[:held].argsort(stable=True)
        return examples[self.pushed[:held][examples].argsort(stable=True)]

    def push(
        self,
        step: int,
        example: Int[Tensor, " rows"],
        current: Float[Tensor, "rows dim"],
        reference: Float[Tensor, "rows dim"],
        hardness: Float[Tensor, " rows"],
    ) -> None:
        """Offer rows, in the order of the effective batch; the rule decides what stays."""
        held = len(self)
        merged = {
            "reference": torch.cat([self.reference[:held], reference]),
            "current": torch.cat([self.current[:held], current]),
            "example": torch.cat([self.example[:held], example]),
            "hardness": torch.cat([self.hardness[:held], hardness]),
            "pushed": torch.cat([self.pushed[:held], torch.full_like(example, step)]),
        }
        total = len(merged["example"])
        if self.keep == "hardest":
            order = torch.sort(merged["hardness"], descending=True, stable=True).indices
        else:
            order = torch.cat([torch.arange(held, total).flip(0), torch.arange(held)])
        self._fill({name: value[order] for name, value in merged.items()})

    def expire(self, before: int) -> None:
        """Forget rows pushed earlier than optimiser step `before`."""
        young = (self.example != FREE) & (self.pushed >= before)
        self._fill({name: value[young] for name, value in self.named_buffers()})

    def _fill(self, rows: dict[str, Tensor]) -> None:
        size = len(self.example)
        for name, buffer in self.named_buffers():
            kept = rows[name][:size]
            buffer.fill_(FREE if name == "example" else 0)
            buffer[: len(kept)] = kept
