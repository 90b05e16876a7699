"""How a base lies over the workers of a group: whole on each, or in shards. The loop does not know
which."""

from typing import Any

import torch

from raycib.config import Precision
from raycib.config.presets import StrategyName
from raycib.models.adapters import RoundedModel, WholeModel
from raycib.training.workers import Workers


class Strategy:
    """The base is whole on each worker."""

    def __init__(self, workers: Workers, device: torch.device) -> None:
        self.workers, self.device = workers, device

    def place(self, model: Any) -> None:
        """Bring a frozen base that was just read to where it is computed with."""
        model.to(self.device)

    def place_whole(self, model: Any, precision: Precision) -> None:
        """The same where all of its weights are to be trained."""
        self.place(model)

    def whole(self, model: Any, precision: Precision) -> WholeModel:
        """A model so placed, to train."""
        return RoundedModel(model) if precision == "bfloat16" else WholeModel(model)


def strategy_of(name: StrategyName, workers: Workers, device: torch.device) -> Strategy:
    """That of `Execution.strategy`; alone a worker has the base whole."""
    if name == "replicated" or workers.size == 1:
        return Strategy(workers, device)
    if name == "zero3":
        from raycib.training.zero3 import Zero3

        return Zero3(workers, device)
    from raycib.training.fsdp2 import Fsdp2

    return Fsdp2(workers, device)
