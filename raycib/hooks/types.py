"""What hooks are given and give back, in torch's terms."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from raycib.models.step import Step

Parameters = Mapping[str, nn.Parameter]
SumOverWorkers = Callable[[Sequence[Tensor]], None]
"""Replaces each tensor by its sum over the workers; every worker must call it equally often."""
Correct = Callable[[Parameters], None]
GradientTransform = Callable[[Sequence[Step], Parameters, SumOverWorkers], Correct | None]


class AfterStepHook(nn.Module):
    """Something that goes along with the weights; its memory is in buffers."""

    def forward(self, parameters: Parameters, last: bool) -> dict[str, float]:
        """After every optimiser step; `last` says that no other follows. Returns numbers for the
        history."""
        raise NotImplementedError

    @contextmanager
    def ended(self, parameters: Parameters) -> Iterator[None]:
        """With the weights as they would be if that step had been the last one."""
        yield
