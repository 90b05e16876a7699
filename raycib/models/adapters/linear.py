"""One linear layer with the low-rank updates of several slots, and whose rows go through which."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from raycib.model_files.adapter_targets import matches


@dataclass(frozen=True)
class LoRAShape:
    """What one slot's adapter looks like."""

    rank: int
    alpha: float | int
    """Numerator of the scale; PEFT's `lora_alpha`."""
    targets: tuple[str, ...]
    """Suffixes of module names, such as `("q_proj", "v_proj")`, matched at a dot as PEFT does."""

    @property
    def scale(self) -> float:
        """The factor before `B A`."""
        return self.alpha / self.rank

    def includes(self, module: str) -> bool:
        """Whether the slot adapts the linear layer of this full name."""
        return any(matches(module, target) for target in self.targets)


def update_norm_sq(
    lora_a: Float[Tensor, "rank in_dim"], lora_b: Float[Tensor, "out_dim rank"], scale: float | int
) -> Float[Tensor, ""]:
    """Squared Frobenius norm of `scale * B A`, in fp32, without forming `B A`.

    ||B A||² = tr(Aᵀ Bᵀ B A) = sum(BᵀB * AAᵀ), two rank x rank matrices. Its gradient at B = 0
    is 0 (that of the norm itself would be NaN).
    """
    with torch.autocast(lora_a.device.type, enabled=False):
        a, b = lora_a.float(), lora_b.float()
        return scale**2 * ((b.mT @ b) * (a @ a.mT)).sum()


class Update(NamedTuple):
    """What an adapter adds to a frozen weight: scale * B A, all that is frozen of it included."""

    a: Float[Tensor, "rank in_dim"]
    b: Float[Tensor, "out_dim rank"]
    scale: float


@dataclass(frozen=True)
class Routes:
    """Which slots own the rows of a batch: equal groups of rows, in order."""

    rows: int
    """Or tokens, of rows that lie end to end."""
    slots: tuple[int, ...]
    """The distinct slots, in order of appearance."""
    num_groups: int
    owners: Tensor | None
    """Position in `slots` of each group's slot; None if group i is simply `slots[i]`'s."""
    counts: tuple[int, ...] | None = None
    """Rows of each of `slots`, where each has a product of its own."""

    @classmethod
    def of(
        cls, groups: Sequence[tuple[int, int]], device: torch.device, apart: bool = False
    ) -> "Routes":
        """Unequal (slot, row count) groups are cut to the greatest common divisor of their counts,
        so that one batched product serves them all: each part has a copy of its slot's factors.
        With `apart` each group has a product of its own instead."""
        unit = math.gcd(*(count for _, count in groups))
        if apart and any(count != unit for _, count in groups):
            slots, counts = zip(*groups, strict=True)
            return cls(sum(counts), slots, len(slots), None, counts)
        owners = [slot for slot, count in groups for _ in range(count // unit)]
        slots = tuple(dict.fromkeys(owners))
        rows = unit * len(owners)
        if slots == tuple(owners):
            return cls(rows, slots, len(slots), None)
        positions = torch.tensor([slots.index(slot) for slot in owners], device=device)
        return cls(rows, slots, len(owners), positions)


class Router:
    """The routes of the batch now in the model; shared by all its LaneLinears."""

    def __init__(self, num_slots: int):
        self.num_slots = num_slots
        self.routes: Routes | None = None
        self.disabled = False

    def routes_of(self, shape: Sequence[int]) -> Routes | None:
        """The routes of a batch of this shape: (rows, ...), or (1, tokens, ...) where they were
        given in tokens; None if the base works alone."""
        if self.disabled:
            return None
        rows = shape[0]
        if self.routes is None:
            if self.num_slots == 1:
                return Routes(rows, (0,), 1, None)
            raise RuntimeError(
                f"{self.num_slots} slots share this model: say whose rows these are with "
                "`with adapters.route([(slot, rows), ...]):`, or use `adapters.disabled()`"
            )
        if self.routes.rows not in (rows, rows * shape[1] if rows == 1 else rows):
            raise ValueError(f"a batch of {rows} rows, but route() was given {self.routes.rows}")
        return self.routes


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
        place = {"dtype": torch.float32, "device": base.weight.device}
        for slot, shape in shapes.items():
            self.lora_A[str(slot)] = torch.zeros(shape.rank, base.in_features, **place)
            self.lora_B[str(slot)] = torch.zeros(base.out_features, shape.rank, **place)

    def freeze(self, slot: int, a: Tensor, b: Tensor, scale: float) -> None:
        """Add `scale * b a` to what the slot computes, untrained."""
        ratio = torch.full((len(a),), scale / self.shapes[slot].scale)
        added = [part.detach().to(self.lora_B[str(slot)]) for part in (a, b, ratio)]
        if slot in self.frozen:
            pairs = zip(self.frozen[slot], added, (0, 1, 0), strict=True)
            added = [torch.cat([before, part], dim=dim) for before, part, dim in pairs]
        self.frozen[slot] = (added[0], added[1], added[2])

    def fix(self, slot: int, directions: Float[Tensor, "out_dim directions"]) -> None:
        """Keep the slot's own update, from now on, out of orthonormal `directions`."""
        self.fixed[slot] = directions.detach().to(self.lora_B[str(slot)])

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

    def forward(self, x: Float[Tensor, "rows *any in_dim"]) -> Float[Tensor, "rows *any out_dim"]:
        routes = self.router.routes_of(x.shape)
        if routes is None or self.shapes.keys().isdisjoint(routes.slots):
            return self.base(x)
        if routes.counts is not None:
            return self._apart(x, routes.slots, routes.counts)
        a, b, scale = _stack([self.factors(slot) for slot in routes.slots])
        if routes.owners is not None:
            a, b = a[routes.owners], b[routes.owners]
        grouped = x.reshape(routes.num_groups, -1, x.shape[-1])  # groups tokens in_dim
        y = self.base(grouped)
        h = torch.bmm(grouped, a.to(y.dtype).mT)  # groups tokens rank
        # In place: nothing needs the base's output alone, and a copy of it is what costs here.
        y.baddbmm_(h, b.to(y.dtype).mT, alpha=scale)
        return y.view(*x.shape[:-1], -1)

    def _apart(self, x: Tensor, slots: Sequence[int], counts: Sequence[int]) -> Tensor:
        """The rows of each slot through its own factors, as they are."""
        y = self.base(x)
        each = x.shape[:-1].numel() // sum(counts)  # tokens of a row; 1 where tokens are counted
        sizes = [count * each for count in counts]
        parts = (values.flatten(0, -2).split(sizes) for values in (x, y))
        found = []
        for slot, own, out in zip(slots, *parts, strict=True):
            if slot in self.shapes:
                a, b, scale = self.factors(slot)
                h = own @ a.to(y.dtype).mT
                out = torch.addmm(out, h, b.to(y.dtype).mT, alpha=scale)
            found.append(out)
        return torch.cat(found).view_as(y)


def _stack(factors: Sequence[tuple[Tensor, Tensor, float]]) -> tuple[Tensor, Tensor, float]:
    """A (slots, rank, in_dim), B (slots, out_dim, rank) and one scale for all of them.

    Smaller ranks are padded with zeros; scales that differ move into B.
    """
    all_a, all_b, scales = zip(*factors, strict=True)
    ranks = [a.shape[0] for a in all_a]
    if len(set(ranks)) > 1:
        gaps = [max(ranks) - rank for rank in ranks]
        all_a = [F.pad(a, (0, 0, 0, gap)) for a, gap in zip(all_a, gaps, strict=True)]
        all_b = [F.pad(b, (0, gap)) for b, gap in zip(all_b, gaps, strict=True)]
    if len(set(scales)) > 1:
        all_b = [scale * b for b, scale in zip(all_b, scales, strict=True)]
        scales = [1.0]
    return torch.stack(all_a), torch.stack(all_b), scales[0]
