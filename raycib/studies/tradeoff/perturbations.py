"""Perturbations of the aligned model that an adapter can hold: directions of the adapter's rank,
put into slots at a chosen length.

A direction is A and B of every adapted layer; it stands for Delta = scale * B A, with ||Delta||² =
sum_m ||Delta_m||², as `AdapterSlots.update_norm_sq` has it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from raycib.models.adapters import AdapterSlots, update_norm_sq

Direction = dict[str, tuple[Tensor, Tensor]]
"""A (rank, in_dim) and B (out_dim, rank) by the adapted layer's name."""
Matrices = Mapping[str, Tensor]
"""One (out_dim, in_dim) matrix an adapted layer, such as the gradient of its weight."""


def rank_of(adapters: AdapterSlots) -> int:
    """The rank of all slots; ValueError if they differ, or hold more than an update of their own,
    since Delta = 0 is then not the aligned model."""
    shapes = set(adapters.shapes)
    if len(shapes) > 1 or any(m.frozen or m.fixed for m in adapters.modules.values()):
        raise ValueError(
            f"found slots of shapes {sorted(map(str, shapes))}, or with frozen slices or fixed "
            "directions; give slots of one shape without either"
        )
    return adapters.shapes[0].rank


def factors(adapters: AdapterSlots, slot: int) -> Direction:
    """The slot's own parameters, as a direction."""
    here = adapters.modules_of(slot).items()
    return {name: (m.lora_A[str(slot)], m.lora_B[str(slot)]) for name, m in here}


def steepest(gradient: Matrices, rank: int) -> Direction:
    """The best approximation of the gradient by matrices of `rank`, at scale 1: of all directions
    of that rank and length, the loss rises fastest along it."""
    found = {}
    for name, matrix in gradient.items():
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        missing = max(0, rank - len(s))
        root = s[:rank].sqrt()
        a, b = root[:, None] * vh[:rank], u[:, :rank] * root
        found[name] = (F.pad(a, (0, 0, 0, missing)), F.pad(b, (0, missing)))
    return found


def random_direction(adapters: AdapterSlots, draw: torch.Generator) -> Direction:
    """A and B with independent normal entries, in the layers of slot 0."""
    found = {}
    for name, (a, b) in factors(adapters, 0).items():
        drawn = (torch.randn(part.shape, generator=draw) for part in (a, b))
        found[name] = (next(drawn).to(a.device), next(drawn).to(b.device))
    return found


def length(direction: Direction) -> float:
    """Norm of the direction, at scale 1."""
    squares = [update_norm_sq(a, b, 1.0) for a, b in direction.values()]
    return float(torch.stack(squares).sum().sqrt())


@torch.no_grad()
def place(adapters: AdapterSlots, slot: int, direction: Direction, distance: float) -> None:
    """Give the slot the Delta of norm |distance| along the direction, or against it if negative; a
    direction of length 0 gives Delta = 0."""
    own = factors(adapters, slot)
    for name, pair in own.items():
        for parameter, value in zip(pair, direction[name], strict=True):
            parameter.copy_(value)
    norm = float(adapters.update_norm_sq(slot).sqrt())
    for _, b in own.values():
        b.mul_(distance / norm if norm else 0.0)


@torch.no_grad()
def orthonormalise(a: Tensor, b: Tensor, moving: int) -> None:
    """Rewrite the same `B A` in place so that the factor which is not `moving` (0: A, 1: B) is
    orthonormal: the gradient of the other is then the loss's own, seen from that subspace."""
    fixed, free = (b, a) if moving == 0 else (a.mT, b.mT)  # B A = fixed @ free, or its transpose
    q, r = torch.linalg.qr(fixed)
    missing = fixed.shape[1] - q.shape[1]  # of a layer smaller than the rank
    free.copy_(F.pad(r @ free, (0, 0, 0, missing)))
    fixed.copy_(F.pad(q, (0, missing)))


def inner_product(adapters: AdapterSlots, slot: int, gradient: Matrices) -> Float[Tensor, ""]:
    """<G, Delta> of the slot, without forming B A: tr(Gᵀ B A) = sum((Bᵀ G) * A)."""
    with torch.no_grad():
        pairs = factors(adapters, slot)
        parts = [((b.mT @ gradient[name]) * a).sum() for name, (a, b) in pairs.items()]
        return adapters.shapes[slot].scale * torch.stack(parts).sum()


@contextmanager
def borrowed(adapters: AdapterSlots) -> Iterator[None]:
    """Within it, without gradients, slots may hold anything; afterwards, what they held before."""
    every = [p for slot in range(adapters.num_slots) for p in adapters.parameters_of(slot).values()]
    before = [parameter.detach().clone() for parameter in every]
    with torch.no_grad():
        try:
            yield
        finally:
            for parameter, value in zip(every, before, strict=True):
                parameter.copy_(value)
