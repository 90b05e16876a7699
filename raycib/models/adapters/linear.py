"""A linear layer with the low-rank updates of several slots, and layers that share an input."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from raycib.errors import UserError
from raycib.models.adapters.product import Block, adapted
from raycib.models.adapters.routes import Router, Run
from raycib.models.adapters.shape import LoRAShape, Update


def check_linear(name: str, linear: nn.Linear) -> None:
    """Raise `UserError` where a linear layer computes something else than one: what an adapter adds
    is added to its product."""
    if type(linear).forward is nn.Linear.forward:
        return
    x = torch.ones(2, linear.in_features, dtype=linear.weight.dtype, device=linear.weight.device)
    with torch.no_grad():
        found, expected = linear(x), F.linear(x, linear.weight, linear.bias)
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-2, atol=1e-2):
        raise UserError(
            f"{name} is a {type(linear).__name__}, which is no plain linear layer; leave it out of "
            "the adapter's targets"
        )


class SlotLinear(nn.Module):
    """A frozen linear layer plus one low-rank update per slot that targets it.

    The update is computed in the dtype of the base layer's output, so bf16 under bf16 autocast;
    its weights and their gradients are fp32. Besides its trained factors a slot may have frozen
    ones, which add to them, and fixed directions of the output, which B may not move:

        scale * ((I - U Uᵀ) B A + B_frozen A_frozen)
    """

    def __init__(self, base: nn.Linear, shapes: Mapping[int, LoRAShape], router: Router):
        super().__init__()
        self.base = base
        self.shapes = dict(shapes)
        self.router = router
        self.lora_A = nn.ParameterDict()
        self.lora_B = nn.ParameterDict()
        self.frozen: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        """A_frozen (any rank, in_dim), B_frozen (out_dim, that rank), and for each of these ranks
        its own scale as a multiple of the slot's."""
        self.fixed: dict[int, Tensor] = {}
        """U (out_dim, directions), orthonormal."""
        self.joint = Joint([self])

    def freeze(self, slot: int, a: Tensor, b: Tensor, scale: float) -> None:
        """Add `scale * b a` to what the slot computes, untrained."""
        ratio = torch.full((len(a),), scale / self.shapes[slot].scale)
        added = [part.detach().to(self.lora_B[str(slot)]) for part in (a, b, ratio)]
        if slot in self.frozen:
            pairs = zip(self.frozen[slot], added, (0, 1, 0), strict=True)
            added = [torch.cat([before, part], dim=dim) for before, part, dim in pairs]
        self.frozen[slot] = (added[0], added[1], added[2])
        self.router.altered.add(slot)

    def fix(self, slot: int, directions: Float[Tensor, "out_dim directions"]) -> None:
        """Keep the slot's own update, from now on, out of orthonormal `directions`."""
        self.fixed[slot] = directions.detach().to(self.lora_B[str(slot)])
        self.router.altered.add(slot)

    def factors(self, slot: int) -> Update:
        """What the slot's rows go through.

        A slot that does not target this layer has rank 0.
        """
        if slot not in self.shapes:
            nothing = torch.zeros(0, device=self.base.weight.device)
            return Update(
                nothing.view(0, self.base.in_features),
                nothing.view(self.base.out_features, 0),
                0.0,
            )
        a, b = self.lora_A[str(slot)], self.lora_B[str(slot)]
        if slot in self.fixed:
            directions = self.fixed[slot]
            b = b - directions @ (directions.mT @ b)
        if slot in self.frozen:
            frozen_a, frozen_b, ratio = self.frozen[slot]
            a = torch.cat([a, frozen_a])
            b = torch.cat([b, frozen_b * ratio], dim=1)
        return Update(a, b, self.shapes[slot].scale)

    def forward(self, x: Float[Tensor, "*any in_dim"]) -> Float[Tensor, "*any out_dim"]:
        return self.joint.output(self, x)


class Joint:
    """Adapted layers that are given the same input: the first that is called computes for all."""

    def __init__(self, layers: Sequence[SlotLinear]):
        self.layers = layers
        for layer in layers:
            layer.joint = self
        self._input: Tensor | None = None
        self._ready: dict[SlotLinear, Tensor] = {}

    def adapted(self, slot: int) -> list[SlotLinear]:
        """The layers that a slot adapts."""
        return [layer for layer in self.layers if slot in layer.shapes]

    def output(self, layer: SlotLinear, x: Tensor) -> Tensor:
        """Of one layer; those of the others are kept until they are asked for."""
        if x is not self._input or layer not in self._ready:
            runs = layer.router.runs(x.shape)
            blocks = [block for run in runs if (block := self._block(run, layer.router))]
            if not blocks:
                return layer.base(x)
            outputs = adapted([one.base for one in self.layers], blocks, x, layer.router.anchor)
            self._input, self._ready = x, dict(zip(self.layers, outputs, strict=True))
        found = self._ready.pop(layer)
        if not self._ready:
            self._input = None
        return found

    def _block(self, run: Run, router: Router) -> Block | None:
        """The factors of the run's slots; None if they adapt no layer here."""
        slot = run.slots.start
        layers = [n for n, layer in enumerate(self.layers) if slot in layer.shapes]
        if not layers:
            return None
        scale = router.shapes[slot].scale
        if slot not in router.altered and not router.by_parameter:
            factors, gradients = router.stacks[slot].block(self, run.slots)
            return Block(run.tokens, layers, *factors, scale, gradients=gradients)
        updates = [self.layers[n].factors(slot) for n in layers]
        a = torch.cat([update.a.detach() for update in updates])[None]
        b = [update.b.detach().mT[None] for update in updates]
        leaves = [u.a for u in updates] + [u.b for u in updates]
        return Block(run.tokens, layers, a, b, scale, leaves)
