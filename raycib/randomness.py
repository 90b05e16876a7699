"""Randomness as a pure function: a resumed run needs no state of it, and slots do not share it."""

import torch

from raycib.config import digest


def generator(seed: int, purpose: str, number: int = 0) -> torch.Generator:
    """A generator for (seed, purpose, number), the same whenever it is asked for."""
    value = int(digest([seed, purpose, number])[:15], 16)
    return torch.Generator().manual_seed(value)
