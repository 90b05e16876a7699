"""All weights of a model trained in shards by DeepSpeed's ZeRO-3: each worker has a part of every
weight in float32, with its gradient and Adam's means, and computes with one gathered layer at a
time, in float32 or rounded to bfloat16.

DeepSpeed gathers, frees and reduces. Clipping, AdamW and checkpoints are raycib's, on the parts
that DeepSpeed holds, as for every other stage.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from raycib.config import Precision
from raycib.models.adapters import WholeModel
from raycib.models.decoder import decoder_layers
from raycib.training.fsdp2 import Fsdp2
from raycib.training.whole_shards import Passes
from raycib.training.workers import Workers


class Zero3(Fsdp2):
    """As `Fsdp2` where adapters are trained; ZeRO-3 where all weights are."""

    def place_whole(self, model: Any, precision: Precision) -> None:
        """It stays in the host's memory until it is dealt."""

    def whole(self, model: Any, precision: Precision) -> WholeModel:
        return PartitionedModel(model, precision, self.workers, self.device)


class PartitionedModel(WholeModel):
    """A model of which this worker trains its part: `parameters_of` are flat, an equal share of
    each weight, with zeros at the end of the last one where it cannot be cut equally."""

    in_parts = "flat"

    def __init__(
        self, model: Any, precision: Precision, workers: Workers, device: torch.device
    ) -> None:
        super().__init__(model)
        self._workers = workers
        parts = {name: self._part(one.detach()) for name, one in self._own.items()}
        self._read: dict[str, Any] = dict(self._own)  # whole while their module computes
        self._engine = _engine(model, precision, device)
        from deepspeed.utils import safe_get_local_fp32_param

        self._own = {n: nn.Parameter(safe_get_local_fp32_param(p)) for n, p in self._read.items()}
        with torch.no_grad():  # DeepSpeed's own are made of what it rounded
            for name, part in parts.items():
                self._own[name].copy_(part)
        inside = {id(one) for layer in decoder_layers(model) for one in layer.parameters()}
        self._outside = [one for one in self._read.values() if id(one) not in inside]
        for one in self._outside:  # however often the head is read, and whoever does
            one.ds_persist = True
        self._gathered: dict[str, Tensor] = {}

    def begin(self, slot: int) -> None:
        """Forget all gradients, and read what the weights are now."""
        super().begin(slot)
        with torch.no_grad():
            for name, one in self._read.items():
                one.ds_tensor.copy_(self._own[name])
        self._engine.optimizer.zero_grad()
        first = self._outside[0]
        first.partition(self._outside)
        first.all_gather(self._outside)

    def passing(self, compute: Callable[[], Tensor]) -> Tensor:
        return self._engine(compute)

    def backward(self, value: Tensor) -> None:
        self._engine.backward(value, scale_wrt_gas=False)

    def sum_gradients(self, trained: Sequence[nn.Parameter], sum_: object) -> None:
        """DeepSpeed has averaged them over the workers; shares add up."""
        from deepspeed.utils import safe_get_local_grad

        for name, one in self._read.items():
            self._own[name].grad = safe_get_local_grad(one).mul_(self._workers.size)

    def _part(self, weight: Tensor) -> Tensor:
        """This worker's share of a whole weight, as DeepSpeed cuts it."""
        size = -(-weight.numel() // self._workers.size)
        own = weight.flatten()[self._workers.rank * size :][:size]
        return nn.functional.pad(own, (0, size - len(own)))

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name in weights.keys() & self._own.keys():
                self._own[name].copy_(self._part(weights[name]))

    def gather(self) -> None:
        """Every weight whole on the first worker, in the host's memory; all workers call this."""
        for name, own in self._own.items():
            parts = [torch.empty_like(own) for _ in range(self._workers.size)]
            dist.all_gather(parts, own.detach())
            if self._workers.rank == 0:
                like = self._read[name]
                whole = torch.cat(parts)[: like.ds_numel].view(like.ds_shape)
                self._gathered[name] = whole.to("cpu", self._dtype)

    def _whole(self, name: str) -> Tensor:
        return self._gathered[name]


def _engine(model: Any, precision: Precision, device: torch.device) -> Any:
    """DeepSpeed's, with the weights dealt. Workers may read the head more or less often than
    others, so nothing is gathered ahead or kept: all that they gather together is a layer's, in
    turn."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel("ERROR")
    # Faster sums within one machine of CPUs; compiling it takes minutes, and gloo does.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    layers = ([*layer.parameters()] for layer in decoder_layers(model))
    largest = max(sum(one.numel() for one in layer) for layer in layers)
    buffers = {name: one.to(device) for name, one in model.named_buffers()}
    engine, *_ = deepspeed.initialize(
        model=Passes(model),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),  # never steps
        config={
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": precision == "bfloat16"},
            "communication_data_type": "fp32",
            "data_types": {"grad_accum_dtype": "fp32"},
            "managed_gradient_accumulation": False,
            "zero_optimization": {
                "stage": 3,
                "overlap_comm": False,
                "reduce_bucket_size": largest,
                "stage3_param_persistence_threshold": 0,
                "stage3_prefetch_bucket_size": 0,
                "stage3_max_reuse_distance": 0,
            },
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        },
    )
    for name, one in model.named_buffers():  # which are float32 whatever weights are
        one.data = buffers[name]
    return engine
