"""A step of plain tensors, for objectives against other versions of themselves."""

import torch
from torch import Tensor

from raycib.config import Layer, Pooling
from raycib.models.step import Step
from raycib.models.tensors import Batch, Totals


class FakeStep(Step):
    """What an objective reads of a step, made of plain tensors."""

    def __init__(
        self,
        z: Tensor,
        zref: Tensor,
        row_loss: Tensor,
        examples: list[int],
        mean: Tensor,
        whole: int,
    ) -> None:
        self.z, self.zref, self.losses, self.mean = z, zref, row_loss, mean
        ids, numbers = torch.zeros(len(z), 1, dtype=torch.long), torch.arange(len(z))
        self.rows = Batch(ids, ids, numbers, numbers, torch.tensor(examples), numbers)
        self.whole = Totals(whole, 1)

    @property
    def batch(self) -> Batch:
        return self.rows

    @property
    def totals(self) -> Totals:
        return self.whole

    @property
    def row_loss(self) -> Tensor:
        return self.losses

    def pooled(self, pooling: Pooling, layer: Layer) -> Tensor:
        return self.z

    def reference(self, pooling: Pooling, layer: Layer) -> Tensor:
        return self.zref

    def reference_mean(self, pooling: Pooling, layer: Layer) -> Tensor:
        return self.mean
