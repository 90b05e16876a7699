"""The factors of slots of one shape, in one tensor."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raycib.models.adapters.shape import LoRAShape

if TYPE_CHECKING:
    from raycib.models.adapters.linear import Joint, SlotLinear


class Factors(NamedTuple):
    """Of the layers of a joint that the slots adapt."""

    a: Float[Tensor, "slots ranks in_dim"]
    """Of all layers, rank above rank."""
    b: list[Float[Tensor, "slots rank out_dim"]]
    """Of each, transposed."""


class Stack:
    """A and B of slots of one shape: a row of `weights` for each slot, and one of `gradients`.

    A layer's factors of neighbouring slots are views of it, and so is each slot's parameter: what
    moves the one moves the other. So is a parameter's gradient, once `link` was called.
    """

    def __init__(
        self,
        shape: LoRAShape,
        slots: Sequence[int],
        joints: Sequence["Joint"],
        device: torch.device,
    ):
        self.slots, self.rank = slots, shape.rank
        self._starts: dict[Joint, int] = {}
        size = 0
        for joint in joints:
            self._starts[joint] = size
            layers = joint.adapted(slots[0])
            size += self.rank * sum(one.base.in_features + one.base.out_features for one in layers)
        self.weights = torch.zeros(len(slots), size, device=device)
        self.gradients: Tensor | None = None
        self._linked: dict[int, list[tuple[nn.Parameter, Tensor]]] = {}
        """Parameters and the views that are their gradients, by slot."""
        self._blocks: dict[tuple[Joint, range], tuple[Factors, list[Tensor]]] = {}
        for joint in joints:
            for layer, slot, a, b in self._parameters(joint, self.weights):
                layer.lora_A[str(slot)], layer.lora_B[str(slot)] = nn.Parameter(a), nn.Parameter(b)

    def factors(self, joint: "Joint", slots: range, whole: Tensor | None = None) -> Factors:
        """Of neighbouring slots; of a tensor like `weights` where one is given."""
        layers, start = joint.adapted(slots.start), self._starts[joint]
        first = self.slots.index(slots.start)
        rows = (self.weights if whole is None else whole)[first : first + len(slots)]
        sizes = [one.base.out_features for one in layers]
        ranks, into = self.rank * len(layers), layers[0].base.in_features
        parts = rows[:, start : start + ranks * into + self.rank * sum(sizes)].split(
            [ranks * into, *(self.rank * size for size in sizes)], dim=1
        )
        a, *b = (
            part.unflatten(1, (-1, last)) for part, last in zip(parts, [into, *sizes], strict=True)
        )
        return Factors(a, b)

    def block(self, joint: "Joint", slots: range) -> tuple[Factors, list[Tensor]]:
        """Factors of neighbouring slots, and the memory of their gradients."""
        if (joint, slots) not in self._blocks:
            gradients = self.factors(joint, slots, self.link())
            self._blocks[joint, slots] = self.factors(joint, slots), [gradients.a, *gradients.b]
        return self._blocks[joint, slots]

    def link(self) -> Tensor:
        """The memory of all gradients, in which those of the parameters are from now on."""
        if self.gradients is None:
            self.gradients = torch.zeros_like(self.weights)
            for joint in self._starts:
                for layer, slot, a, b in self._parameters(joint, self.gradients):
                    pairs = [(layer.lora_A[str(slot)], a), (layer.lora_B[str(slot)], b)]
                    self._linked.setdefault(slot, []).extend(pairs)
            for slot in self.slots:
                self.collect(slot)
        return self.gradients

    def row(self, slot: int) -> nn.Parameter:
        """All that a slot trains, with its gradient, as one vector."""
        gradients, number = self.link(), self.slots.index(slot)
        row = nn.Parameter(self.weights[number])
        row.grad = gradients[number]
        return row

    def clear(self, slot: int) -> None:
        """Zero the slot's gradients."""
        gradients = self.link()
        self.collect(slot)
        gradients[self.slots.index(slot)].zero_()

    def collect(self, slot: int) -> None:
        """Take over gradients that were put in the place of views."""
        for parameter, gradient in self._linked[slot]:
            if parameter.grad is not gradient:
                gradient.zero_() if parameter.grad is None else gradient.copy_(parameter.grad)
                parameter.grad = gradient

    def _parameters(
        self, joint: "Joint", whole: Tensor
    ) -> Iterator[tuple["SlotLinear", int, Tensor, Tensor]]:
        """Each slot's part of each layer: A (rank, in_dim), B (out_dim, rank)."""
        a, b = self.factors(joint, range(self.slots[0], self.slots[0] + len(self.slots)), whole)
        for number, slot in enumerate(self.slots):
            parts = zip(joint.adapted(slot), a[number].split(self.rank), b, strict=True)
            for layer, own_a, own_b in parts:
                yield layer, slot, own_a, own_b[number].mT
