"""Weights of which each worker may have a part."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def gathered(model: Any, name: str) -> Iterator[None]:
    """Within it, the weights of the module of this full name are here whole, however the model
    lies over the workers (see `raycib.training.fsdp2`)."""
    parts = name.split(".")
    above = (model.get_submodule(".".join(parts[:n])) for n in range(len(parts) + 1))
    units = [module for module in above if hasattr(module, "unshard")]
    for unit in units:
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
