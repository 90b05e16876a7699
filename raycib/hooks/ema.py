"""The exponential moving average of the weights (Kim et al. 2025).

Deviations from the paper: written from its abstract. A and B are averaged each on its own, so the
average is not that of the updates B A; training goes on from the weights, not from the average.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from raycib.hooks.types import AfterStepHook, Parameters


class WeightAverage(AfterStepHook):
    """average <- decay * average + (1 - decay) * weights after every step, from the starting
    weights on; after the last step it takes their place."""

    def __init__(self, parameters: Parameters, decay: float) -> None:
        super().__init__()
        self.decay = decay
        for name, parameter in parameters.items():
            self.register_buffer(_buffer(name), parameter.detach().clone())

    @torch.no_grad()
    def forward(self, parameters: Parameters, last: bool) -> dict[str, float]:
        for name, parameter in parameters.items():
            average = self.get_buffer(_buffer(name))
            average.lerp_(parameter, 1 - self.decay)
        if last:
            self._show(parameters)
        return {}

    @contextmanager
    @torch.no_grad()
    def ended(self, parameters: Parameters) -> Iterator[None]:
        weights = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        self._show(parameters)
        try:
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.copy_(weights[name])

    def _show(self, parameters: Parameters) -> None:
        for name, parameter in parameters.items():
            parameter.copy_(self.get_buffer(_buffer(name)))


def _buffer(name: str) -> str:
    return name.replace(".", "/")  # a module's attribute has no dots
