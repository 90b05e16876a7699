"""The loss around the aligned model theta_s: the constants of the Trade-offs paper's Case II.

Losses are means over rows of -log p(answer | prompt), in nats an answer, as in Assumptions 3 and
4; perturbations Delta are those that an adapter can hold (`perturbations`). So L_s and gradients
are in nats per unit of ||Delta||, and L'_f per its square.

Both constants are suprema over a ball. What is found is the largest value among the perturbations
tried, a lower bound of each. Weights and slots are left as they were. The gradient takes an fp32
copy of the adapted layers' weights.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from raycib.data.chat import Encoded
from raycib.models.adapters import AdapterSlots
from raycib.randomness import generator
from raycib.studies.tradeoff.perturbations import (
    Direction,
    borrowed,
    factors,
    inner_product,
    length,
    orthonormalise,
    place,
    random_direction,
    rank_of,
    steepest,
)
from raycib.studies.tradeoff.sequence_loss import dense_gradient, mean_loss, slopes_of
from raycib.studies.tradeoff.theory import Landscape, Slope

SAMPLES = 4
"""Random directions of `lipschitz`."""
STEPS = 16
"""Ascent steps of `lipschitz`."""
SHARES = tuple(2.0 ** (-n / 2) for n in range(10))
"""Of the radius: where `smoothness` measures curvature. In steps of sqrt 2, so that twice the
radius mostly adds to what was tried along the gradient."""


def lipschitz(
    adapters: AdapterSlots,
    data: Sequence[Encoded],
    radii: Sequence[float],
    seed: int = 0,
    samples: int = SAMPLES,
    steps: int = STEPS,
) -> list[Slope]:
    """Theorem 3's L_s(theta_s, epsilon) on safety rows, for each epsilon of `radii`: lower bounds
    of sup |L(theta_s + Delta) - L(theta_s)| / ||Delta|| over 0 < ||Delta|| <= epsilon.

    Radii are slots side by side. Random directions are the same at every radius. The ascent
    starts along the gradient and takes steps of the power method: one factor of Delta = B A is
    made orthonormal and the other one becomes the loss's gradient, scaled back to the sphere,
    which maximises the loss's linear part. There is no step size to tune, and where the loss is
    convex no step lowers it. It is not convex: half-way, every radius goes on from the steepest
    direction found at any, which a smaller one may not find by itself. Both bounds are maxima
    over the smaller radii, since a ball holds theirs.
    """
    if min(radii) <= 0 or len(radii) > adapters.num_slots:
        raise ValueError(
            f"found radii {list(radii)} and {adapters.num_slots} slots; give positive radii and "
            "at least as many slots"
        )
    slots, rank = range(len(radii)), rank_of(adapters)
    start, gradient = dense_gradient(adapters, data)
    uphill = steepest(gradient, rank)
    distances = torch.tensor(radii, dtype=torch.float64)

    def ratios(losses: Mapping[int, Tensor]) -> Float[Tensor, " radii"]:
        found = torch.stack([losses[slot] for slot in slots]).cpu()
        return (found - start).abs() / distances

    sampled, ascent = torch.zeros_like(distances), torch.full_like(distances, length(uphill))
    with borrowed(adapters):
        for number in range(samples):
            direction = random_direction(adapters, generator(seed, "lipschitz", number))
            for slot in slots:
                place(adapters, slot, direction, radii[slot])
            sampled = sampled.maximum(ratios(mean_loss(adapters, slots, data)))
        sources = [uphill] * len(radii)
        for step in range(steps + 1):
            for slot in slots:
                place(adapters, slot, sources[slot], radii[slot])
            sources = [factors(adapters, slot) for slot in slots]
            if step == steps:
                found = ratios(mean_loss(adapters, slots, data))
            else:
                found = ratios(_power_step(adapters, data, sources, moving=step % 2))
            ascent = ascent.maximum(found)
            if step + 1 == steps // 2:
                sources = [sources[int(found.argmax())]] * len(radii)
    inside = distances <= distances[:, None]
    return [
        Slope(
            epsilon=radius,
            sampled=float(sampled[within].max()),
            ascent=float(ascent[within].max()),
        )
        for radius, within in zip(radii, inside, strict=True)
    ]


def _power_step(
    adapters: AdapterSlots, data: Sequence[Encoded], slots: Sequence[Direction], moving: int
) -> dict[int, Tensor]:
    """Losses of the first slots, given by their factors, before one factor (0: A, 1: B) of each
    layer becomes the loss's gradient with the other one orthonormal, at any length."""
    pairs = [pair for slot in slots for pair in slot.values()]
    for a, b in pairs:
        orthonormalise(a, b, moving)
    free = [pair[moving] for pair in pairs]
    losses, slopes = slopes_of(adapters, range(len(slots)), data, free)
    for parameter, slope in zip(free, slopes, strict=True):
        parameter.copy_(slope)
    return losses


def smoothness(
    adapters: AdapterSlots, data: Sequence[Encoded], radius: float, seed: int = 0
) -> Landscape:
    """Theorem 4's gradient norms and L'_f(theta_s, radius) on task rows, the latter the largest

        2 (f(theta_s + Delta) - f(theta_s) - <g, Delta>) / ||Delta||²

    at `SHARES` of the radius, each along minus the gradient of the adapter's rank (all that the
    theorem's proof needs) and in a random direction. Rounding of f, about 1e-6 nats in float32,
    adds some 2e-6 / ||Delta||².
    """
    if radius <= 0:
        raise ValueError(f"found radius {radius}; give a positive one")
    rank = rank_of(adapters)
    start, gradient = dense_gradient(adapters, data)
    uphill = steepest(gradient, rank)
    points = [(uphill, -share * radius) for share in SHARES]
    for number, share in enumerate(SHARES):
        direction = random_direction(adapters, generator(seed, "smoothness", number))
        points.append((direction, share * radius))
    curvatures = []
    with borrowed(adapters):
        for first in range(0, len(points), adapters.num_slots):
            chosen = points[first : first + adapters.num_slots]
            for slot, (direction, distance) in enumerate(chosen):
                place(adapters, slot, direction, distance)
            for slot, loss in mean_loss(adapters, range(len(chosen)), data).items():
                rise = float(loss) - start - float(inner_product(adapters, slot, gradient))
                curvatures.append(2 * rise / chosen[slot][1] ** 2)
    full = torch.stack([part.square().sum() for part in gradient.values()]).sum().sqrt()
    return Landscape(
        gradient_norm=length(uphill),
        gradient_norm_full=float(full),
        smoothness=max(curvatures),
        n=len(data),
    )
