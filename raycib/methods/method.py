"""The few places where a method may change what plain LoRA does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from raycib.adapters import LaneAdapters
from raycib.data.chat import Encoded
from raycib.objectives import Objective
from raycib.spec import StageSpec, TaskSpec
from raycib.step import Step
from raycib.store import Store

Parameters = Mapping[str, nn.Parameter]
SumOverWorkers = Callable[[Sequence[Tensor]], None]
"""Replaces each tensor by its sum over the workers; every worker must call it equally often."""


@dataclass(frozen=True)
class Opening:
    """A lane about to be trained, and what a method may need to prepare it."""

    adapters: LaneAdapters
    lane: int
    """Its place in `adapters`: initialised, or holding its parent's adapter."""
    stage: StageSpec
    store: Store
    encode: Callable[[TaskSpec], list[Encoded]]
    """Rows as tokens."""


class Beside(NamedTuple):
    """Safety rows that each optimiser step sees beside the task's."""

    per_step: int
    at_most: int | None = None
    """Use only the first rows of the safety data; None uses all."""
    prompts_only: bool = False
    """Leave the responses out, where nothing reads them."""


class Follower(nn.Module):
    """Something that goes along with the weights; its memory is in buffers."""

    def forward(self, parameters: Parameters, last: bool) -> dict[str, float]:
        """After every optimiser step; `last` says that no other follows. Returns numbers for the
        history."""
        raise NotImplementedError


Rows = Callable[[list[Encoded], list[Encoded], int], list[Encoded]]
Start = Callable[[Opening], None]
Correct = Callable[[Parameters], None]
LookAhead = Callable[[Sequence[Step], Parameters, SumOverWorkers], Correct | None]
Follow = Callable[[Parameters, float], Follower]
"""Of the weights and the scale of their product."""


def rows_of_task(task: list[Encoded], safety: list[Encoded], seed: int) -> list[Encoded]:
    """All of the task's rows and nothing else."""
    return task


@dataclass(frozen=True)
class Method:
    """What a method changes about a stage; each default changes nothing."""

    objective: Objective
    """The loss."""
    rows: Rows = rows_of_task
    """What is trained on, of (task rows, safety rows, seed)."""
    beside: Beside | None = None
    """Safety rows drawn beside the task's, for the loss or the look ahead."""
    start: Start | None = None
    """Changes the adapter before its first step; for a derived stage that is all there is."""
    look_ahead: LookAhead | None = None
    """Before the gradient of a step, with passes of its own over the lane's micro-batches; returns
    what to do to the gradient once it is there, if anything."""
    follow: Follow | None = None
    """Goes along with the weights from their start on."""
