"""The processes that train one group together: rows are sharded, LoRA gradients are summed."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


class Workers(NamedTuple):
    """This process among its peers; (0, 1) trains alone."""

    rank: int = 0
    size: int = 1
    meet: Callable[[], None] = lambda: None
    """Before all do the same: serves the others, where they need something of this one."""

    @classmethod
    def current(cls) -> "Workers":
        """Of the initialised process group, or alone."""
        if not dist.is_initialized():
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes its sum over the workers, in one collective."""
        if self.size == 1 or not tensors:
            return
        self.meet()
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def norm(self, own: Tensor) -> Tensor:
        """The norm of all workers' parts, of that of one's own."""
        square = own.square()
        self.sum_([square])
        return square.sqrt()

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, in order of rank."""
        if self.size == 1:
            return [value]
        self.meet()
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values
