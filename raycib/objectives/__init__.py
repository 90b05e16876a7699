"""One loss a file. An objective reads a step and returns named terms.

Every term is a *share of the mean over the whole effective batch*: a micro-batch divides its sum
by the totals of the batch it belongs to. Adding the shares of all micro-batches and workers gives
the batch mean, so gradient accumulation and data parallelism need no further thought.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raycib.models.step import Step


@dataclass(frozen=True)
class LossTerm:
    """One addend, `weight * value`; the values of all micro-batches add up to a mean in nats."""

    value: Float[Tensor, ""]
    weight: float = 1.0


LossTerms = dict[str, LossTerm]
Observations = dict[str, Tensor]
"""What a step taught an objective: tensors whose first dimension is rows."""


class Objective(nn.Module):
    """`Step -> LossTerms`, with a memory that lives in buffers (so a checkpoint holds it)."""

    reads_prompts = False
    """Whether it reads states of prompts beside the last one of each."""

    def begin_step(self, step: int, generator: torch.Generator) -> None:
        """Once per optimiser step, before its first micro-batch; alike on every worker."""

    def forward(self, step: Step) -> LossTerms:
        """The terms of one micro-batch."""
        raise NotImplementedError

    def observations(self) -> Observations:
        """What this worker saw since `begin_step`; must hold `positions` if it holds anything."""
        return {}

    def end_step(self, step: int, seen: Observations) -> None:
        """Once per optimiser step, with the observations of all workers, ordered by position."""


class Sum(Objective):
    """Several objectives as one; their terms stay apart until the last moment."""

    def __init__(self, parts: Sequence[Objective]) -> None:
        super().__init__()
        self.parts: Iterable[Objective] = nn.ModuleList(parts)  # type: ignore[assignment]
        self.reads_prompts = any(part.reads_prompts for part in parts)

    def begin_step(self, step: int, generator: torch.Generator) -> None:
        for part in self.parts:
            part.begin_step(step, generator)

    def forward(self, step: Step) -> LossTerms:
        terms: LossTerms = {}
        for part in self.parts:
            new: LossTerms = part(step)
            if clash := terms.keys() & new.keys():
                raise ValueError(f"two objectives both name a term {sorted(clash)}; rename one")
            terms |= new
        return terms

    def observations(self) -> Observations:
        found: Observations = {}
        for number, part in enumerate(self.parts):
            found |= {f"{number}/{name}": value for name, value in part.observations().items()}
        return found

    def end_step(self, step: int, seen: Observations) -> None:
        for number, part in enumerate(self.parts):
            mine = f"{number}/"
            part.end_step(
                step, {k.removeprefix(mine): v for k, v in seen.items() if k.startswith(mine)}
            )
