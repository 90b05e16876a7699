"""All weights of a model trained in shards by FSDP2: each worker has its rows of every weight in
float32, with their gradients and Adam's means, and computes with one gathered layer at a time, in
float32 or rounded to bfloat16."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from raycib.config import Precision
from raycib.models.adapters import WholeModel
from raycib.models.decoder import decoder_layers
from raycib.training.workers import Workers


class Passes(nn.Module):
    """All passes of a micro-batch through a model as one call: what lies outside of its layers is
    gathered once, however often it is read."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.own_dtype = model, model.dtype

    def forward(self, compute: Callable[[], Any]) -> Any:
        """What it gives."""
        return compute()


def shard(model: Any, mesh: DeviceMesh, precision: Precision) -> Passes:
    """Keep this worker's part of a model that was just read, in float32, to compute with in
    `precision`; what lies outside of its layers is left gathered, for a first look."""
    passes = Passes(model.requires_grad_(True))
    rounded = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    policy = rounded if precision == "bfloat16" else MixedPrecisionPolicy()
    for part in (*decoder_layers(model), passes):
        part.float()
        unit: Any = fully_shard(part, mesh=mesh, mp_policy=policy)
        unit.set_gradient_divide_factor(1.0)  # shares add up
        unit.set_force_sum_reduction_for_comms(True)
    passes(lambda: None)  # FSDP2 learns which is the outermost
    passes.unshard()  # type: ignore[operator]
    return passes


class ShardedModel(WholeModel):
    """A model of which this worker trains its part: `parameters_of` are its rows of each weight."""

    in_parts = "rows"

    def __init__(self, passes: Any, workers: Workers) -> None:
        passes.reshard()  # first: what is gathered may be in bfloat16, and is to stay so
        super().__init__(passes.model)
        self._dtype, self._passes, self._workers = passes.own_dtype, passes, workers
        self._shards: dict[str, Any] = dict(self.model.named_parameters())  # tied ones once
        self._own = {name: nn.Parameter(one.to_local()) for name, one in self._shards.items()}
        self._gathered: dict[str, Tensor] = {}

    def passing(self, compute: Callable[[], Tensor]) -> Tensor:
        self._passes.reshard()  # gathered anew: a pass without a backward one leaves it whole
        return self._passes(compute)

    def sum_gradients(self, trained: Sequence[nn.Parameter], sum_: object) -> None:
        """FSDP2 has summed this worker's rows in each backward pass."""
        for name, shard in self._shards.items():
            grad, shard.grad = shard.grad, None
            self._own[name].grad = grad.to_local() if grad is not None else None

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name in weights.keys() & self._own.keys():
                parts = weights[name].chunk(self._workers.size)  # as FSDP2 cuts them
                own = parts[self._workers.rank] if self._workers.rank < len(parts) else parts[0][:0]
                self._own[name].copy_(own)

    def gather(self) -> None:
        """Every weight whole on the first worker, in the host's memory; all workers call this."""
        for name, shard in self._shards.items():
            whole = shard.full_tensor()
            if self._workers.rank == 0:
                self._gathered[name] = whole.to("cpu", self._dtype)

    def _whole(self, name: str) -> Tensor:
        return self._gathered[name]
