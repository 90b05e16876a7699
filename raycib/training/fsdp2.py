"""A base in shards: each decoder layer is a unit of FSDP2, which gathers it where it is read and
frees it afterwards.

FSDP2 wants all workers to pass through all layers equally often, in one order. Groups do not: a
worker may have no row of a slot, methods have passes of their own, and the first worker measures
alone. So workers say what they want before each gather, and serve what others want: whatever a
method does is right, whoever does it. Where all weights are trained there is no method, and FSDP2
is used as it is (`raycib.training.whole_shards`).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from raycib.config import Precision
from raycib.models.adapters import WholeModel
from raycib.models.decoder import decoder_layers
from raycib.training.strategies import Strategy
from raycib.training.whole_shards import ShardedModel, shard
from raycib.training.workers import Workers

NOTHING = -1
"""Wanted by a worker that waits for the others."""


class Fsdp2(Strategy):
    """The decoder layers of one base, a part of each on every worker; the rest (embeddings, last
    norm and head, which may be one tensor) is whole on each.

    It is FSDP2's way to gather, too (`FSDPModule.set_custom_all_gather`).
    """

    def __init__(self, workers: Workers, device: torch.device) -> None:
        super().__init__(workers._replace(meet=self.meet), device)
        self._mesh = init_device_mesh(device.type, (workers.size,))
        self._talk = dist.new_group(backend="gloo")  # of plain numbers: no GPU waits for them
        self._units: list[FSDPModule] = []
        self._serving = False

    def place(self, model: Any) -> None:
        """Keep this worker's part of each layer; it takes the place of a base before it."""
        self.meet()  # the others may still read that one
        self._units = []
        for number, layer in enumerate(decoder_layers(model)):
            unit: Any = fully_shard(layer, mesh=self._mesh, reshard_after_forward=True)
            unit.set_custom_all_gather(_OnRequest(self, number))
            self._units.append(unit)
        model.to(self.device)

    def place_whole(self, model: Any, precision: Precision) -> None:
        self._whole = shard(model, self._mesh, precision)

    def whole(self, model: Any, precision: Precision) -> WholeModel:
        return ShardedModel(self._whole, self.workers)

    def meet(self) -> None:
        """Serve the others until all of them wait here."""
        while any(number != NOTHING for number in self._round(NOTHING)):
            pass

    def want(self, number: int, gather: Callable[[], object]) -> None:
        """Have `gather` called at a time at which all workers gather that unit."""
        if self._serving:
            gather()
            return
        self._round(number, gather)

    def _round(self, own: int, gather: Callable[[], object] = lambda: None) -> list[int]:
        """Each worker gets the unit that it wants; what they wanted."""
        said = [torch.zeros(1, dtype=torch.long) for _ in range(self.workers.size)]
        dist.all_gather(said, torch.tensor([own]), group=self._talk)
        wanted = [int(one) for one in said]
        for number in sorted(set(wanted) - {NOTHING}):
            gather() if number == own else self._serve(self._units[number])
        return wanted

    def _serve(self, unit: Any) -> None:
        """Gather a unit that only others want; it is left as it was."""
        held = not any(isinstance(one, DTensor) for one in unit.parameters())
        self._serving = True
        try:
            unit.reshard()
            unit.unshard()
        finally:
            self._serving = False
        if not held:
            unit.reshard()


class _OnRequest:
    """FSDP2's all-gather of one unit (its `AllGather`), in turn with the other workers."""

    def __init__(self, shards: Fsdp2, number: int) -> None:
        self._shards, self._number = shards, number

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False
    ) -> None:
        self._shards.want(
            self._number,
            lambda: dist.all_gather_single(output_tensor, input_tensor, group=group),
        )
