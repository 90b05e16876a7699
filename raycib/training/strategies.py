"""How the frozen base of a group lies over its workers: whole on each, or in shards. Nothing else
of a training knows which."""

from collections.abc import Callable
from typing import Any

import torch

from raycib.config.presets import Strategy
from raycib.training.workers import Workers

Place = Callable[[Any], object]
"""Brings a model that was just read to where it is computed with."""


def strategy_of(name: Strategy, workers: Workers, device: torch.device) -> tuple[Workers, Place]:
    """The workers, who meet as the strategy needs it, and how it places a frozen base."""
    if name == "replicated" or workers.size == 1:
        return workers, lambda model: model.to(device)
    from raycib.training.fsdp2 import Shards

    shards = Shards(workers, device)
    return workers._replace(meet=shards.meet), shards.place
