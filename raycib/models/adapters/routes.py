"""Whose rows the batch in the model is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from raycib.models.adapters.shape import LoRAShape
from raycib.models.adapters.stack import Stack


@dataclass(frozen=True)
class Routes:
    """Which slots own the rows of a batch."""

    groups: tuple[tuple[int, int], ...]
    """Slot and rows of each group, in the order of the rows; or tokens, where all rows of a batch
    lie one after the other on one axis."""
    stacked: bool
    """Whether gradients go to the slots' common memory, not to each parameter by itself."""


class Run(NamedTuple):
    """Groups of one size whose slots are neighbours of one shape: one product serves them."""

    slots: range
    tokens: slice


class Router:
    """The routes of the batch now in the model; shared by all its layers."""

    def __init__(self, shapes: Sequence[LoRAShape]):
        self.shapes = shapes
        self.stacks: dict[int, Stack] = {}
        """Where each slot's factors are."""
        self.routes: Routes | None = None
        self.anchor = torch.zeros((), requires_grad=True)
        """Has backward passes come by where nothing else wants a gradient."""
        self.disabled = False
        self.altered: set[int] = set()
        """Slots that compute with more than their own factors."""
        self._last: tuple[object, list[Run]] = (None, [])

    @property
    def by_parameter(self) -> bool:
        """Whether gradients go to each slot's parameters."""
        return torch.is_grad_enabled() and not (self.routes and self.routes.stacked)

    def runs(self, shape: torch.Size) -> list[Run]:
        """Of a batch of this shape, (rows, ..., features); none where the base works alone."""
        if self.disabled:
            return []
        call = (self.routes, shape[:-1], self.by_parameter, len(self.altered))
        if self._last[0] != call:
            self._last = (call, self._find(shape))
        return self._last[1]

    def _find(self, shape: torch.Size) -> list[Run]:
        found: list[Run] = []
        end = 0
        for slot, tokens in self._groups(shape):
            start, end = end, end + tokens
            if found and self._joins(found[-1], slot, tokens):
                last = found.pop()
                found.append(Run(range(last.slots.start, slot + 1), slice(last.tokens.start, end)))
            else:
                found.append(Run(range(slot, slot + 1), slice(start, end)))
        return found

    def _groups(self, shape: torch.Size) -> list[tuple[int, int]]:
        """Slot and tokens of each."""
        rows, tokens = shape[0], shape[:-1].numel()
        if self.routes is None:
            if len(self.shapes) == 1:
                return [(0, tokens)]
            raise RuntimeError(
                f"{len(self.shapes)} slots share this model: say whose rows these are with "
                "`with adapters.route([(slot, rows), ...]):`, or use `adapters.disabled()`"
            )
        routed = sum(count for _, count in self.routes.groups)
        if len(shape) == 2:  # OPT's layers, and an expert for all tokens, have rows end to end
            fits = tokens % routed == 0
        else:
            fits = routed == rows or (rows == 1 and routed == tokens)
        if not fits:
            raise ValueError(f"a batch of {rows} rows, but route() was given {routed}")
        return [(slot, tokens // routed * count) for slot, count in self.routes.groups]

    def _joins(self, run: Run, slot: int, tokens: int) -> bool:
        return (
            not self.by_parameter
            and slot == run.slots.stop
            and self.shapes[slot] == self.shapes[slot - 1]
            and not self.altered & {slot - 1, slot}
            and tokens * len(run.slots) == run.tokens.stop - run.tokens.start
        )
