"""The constants of Case II: on a quadratic loss whose constants are known, and on a tiny Llama."""

import math
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from raycib.data.chat import Encoded
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.studies.tradeoff import perturbations, sequence_loss
from raycib.studies.tradeoff.bounds import theorem4_decrease
from raycib.studies.tradeoff.landscape import lipschitz, mean_loss, smoothness
from raycib.studies.tradeoff.sequence_loss import dense_gradient
from raycib.training.group import load

CPU = torch.device("cpu")
SLOTS = 3


@pytest.fixture(scope="module")
def data(tiny_folder: Path) -> list[Encoded]:
    loaded = load([tiny.make_stage(tiny_folder)], CPU)
    return loaded.encode(tiny.make_evals(tiny_folder).held_out)


def open_adapters(folder: Path, rank: int = 4, slots: int = SLOTS) -> AdapterSlots:
    """Slots that hold something already, on the tiny model: 14 layers, of at most 64 x 32."""
    model = load([tiny.make_stage(folder)], CPU).adapters
    linears = [name for name in model.modules if "layers" in name]
    for name in linears:  # plain again, for slots of another rank
        model.model.set_submodule(name, model.modules[name].base)
    targets = tuple({name.rpartition(".")[2] for name in linears})
    adapters = AdapterSlots(model.model, [LoRAShape(rank, 2 * rank, targets)] * slots)
    draw = torch.Generator().manual_seed(0)
    for slot in range(slots):
        held = perturbations.random_direction(adapters, draw)
        perturbations.place(adapters, slot, held, 0.5 + slot)
    return adapters


@pytest.fixture
def adapters(tiny_folder: Path) -> AdapterSlots:
    return open_adapters(tiny_folder)


def update(adapters: AdapterSlots, slot: int) -> dict[str, Tensor]:
    """Delta, formed."""
    scale = adapters.shapes[slot].scale
    pairs = perturbations.factors(adapters, slot).items()
    return {name: scale * (b @ a) for name, (a, b) in pairs}


def norm(matrices: dict[str, Tensor]) -> float:
    return float(sum(matrix.square().sum() for matrix in matrices.values())) ** 0.5


# A quadratic loss: f = h/2 sum_m ||W_m + Delta_m - T_m||², so g = h (W - T) and L' = h everywhere

CURVATURE = 3.0


@pytest.fixture
def quadratic(monkeypatch, adapters: AdapterSlots) -> dict[str, Tensor]:
    """Puts it in place of the model's loss; returns the targets T, at distance 2 from W, to be
    changed at will."""
    draw = torch.Generator().manual_seed(1)
    weights = {name: module.base.weight for name, module in adapters.modules.items()}
    offset = {name: torch.randn(w.shape, generator=draw) for name, w in weights.items()}
    far = norm(offset) / 2
    targets = {name: w.detach() - offset[name] / far for name, w in weights.items()}

    def parts(adapters: AdapterSlots, slots: list[int], data: object):
        def loss(slot: int) -> Tensor:
            moved = {} if adapters._router.disabled else update(adapters, slot)
            gaps = [w + moved.get(name, 0) - targets[name] for name, w in weights.items()]
            return CURVATURE / 2 * torch.stack([gap.double().square().sum() for gap in gaps]).sum()

        yield {slot: loss(slot) for slot in slots}

    monkeypatch.setattr(sequence_loss, "_parts", parts)
    return targets


def test_lipschitz_constant_of_a_quadratic_is_found(quadratic, adapters):
    """|f(Delta) - f(0)| / ||Delta|| = |<g, Delta>| / ||Delta|| + h/2 ||Delta||, largest along the
    part of g that an adapter of rank 4 can follow: ||g_4|| + h epsilon / 2."""
    gradient = {n: CURVATURE * (m.base.weight - quadratic[n]) for n, m in adapters.modules.items()}
    squares = [torch.linalg.svdvals(g.detach())[:4].square().sum() for g in gradient.values()]
    steepest = float(sum(squares)) ** 0.5
    assert norm(gradient) == pytest.approx(2 * CURVATURE, rel=1e-5)
    assert steepest < norm(gradient)
    radii = [0.1, 1.0, 4.0]
    for found, radius in zip(lipschitz(adapters, [], radii, steps=4), radii, strict=True):
        assert found.epsilon == radius
        assert found.ascent == pytest.approx(steepest + CURVATURE * radius / 2, rel=1e-4)
        assert found.sampled < found.ascent


def test_at_a_minimum_random_directions_still_see_the_curvature(quadratic, adapters):
    """g = 0: the ratio is h epsilon / 2 in every direction; an ascent has nowhere to go."""
    for name, module in adapters.modules.items():
        quadratic[name] = module.base.weight.detach().clone()
    (found,) = lipschitz(adapters, [], [2.0])
    assert found.sampled == pytest.approx(CURVATURE, rel=1e-5)
    assert found.ascent == 0


def test_smoothness_of_a_quadratic_is_its_curvature(quadratic, adapters):
    found = smoothness(adapters, [], 1.5)
    assert found.smoothness == pytest.approx(CURVATURE, rel=1e-3)
    assert found.gradient_norm_full == pytest.approx(2 * CURVATURE, rel=1e-5)


def test_the_ascent_finds_the_gradient_from_anywhere(quadratic, adapters):
    """A power step: B orthonormal, A becomes the gradient; three of them turn a random direction
    to the steepest one of a quadratic whose gradient has rank 1."""
    for name, module in adapters.modules.items():
        w = module.base.weight.detach()
        quadratic[name] = w - torch.outer(torch.linspace(1, 2, len(w)), torch.ones(w.shape[1]))
    _, gradient = dense_gradient(adapters, [])
    for step in range(3):
        pairs = list(perturbations.factors(adapters, 0).values())
        for a, b in pairs:
            before = b @ a
            perturbations.orthonormalise(a, b, step % 2)
            torch.testing.assert_close(b @ a, before, rtol=1e-4, atol=1e-5)
            fixed = a if step % 2 else b.mT
            torch.testing.assert_close(fixed @ fixed.mT, torch.eye(4), atol=1e-5, rtol=0)
        free = [pair[step % 2] for pair in pairs]
        _, slopes = sequence_loss.slopes_of(adapters, [0], [], free)
        with torch.no_grad():
            for parameter, slope in zip(free, slopes, strict=True):
                parameter.copy_(slope)
        perturbations.place(adapters, 0, perturbations.factors(adapters, 0), 1e-3)
    along = float(perturbations.inner_product(adapters, 0, gradient)) / 1e-3
    assert along == pytest.approx(norm(gradient), rel=1e-4)


# Theorem 4, corrected


def test_without_curvature_the_loss_falls_with_the_whole_step():
    assert theorem4_decrease(2.0, 0.0, 0.5) == 1.0
    assert theorem4_decrease(2.0, -1.0, 1.0) == 2.5
    assert theorem4_decrease(0.0, 0.0, 1.0) == 0.0


def test_an_adapter_achieves_the_theorem4_decrease(adapters, data):
    """L' holds at the radius itself along minus the gradient, so the bound there is no estimate."""
    found = smoothness(adapters, data, 0.2)
    assert found.gradient_norm / found.smoothness > 0.2
    promised = theorem4_decrease(found.gradient_norm, found.smoothness, 0.2)
    start, gradient = dense_gradient(adapters, data)
    perturbations.place(adapters, 0, perturbations.steepest(gradient, 4), -0.2)
    fallen = start - float(mean_loss(adapters, [0], data)[0].detach())
    assert fallen >= promised - 1e-5
    assert promised > 0


# The tiny Llama


def test_mean_loss_is_that_of_transformers(adapters, data):
    """Row by row, without padding, from the library's own mean over scored tokens."""
    total = 0.0
    for one in data:
        ids = torch.tensor([one.prompt + one.response])
        labels = ids.clone()
        labels[:, : len(one.prompt)] = -100
        with torch.no_grad(), adapters.route({1: 1}):
            mean = adapters.model(input_ids=ids, labels=labels).loss
        total += float(mean) * len(one.response)
    assert float(mean_loss(adapters, [1], data)[1].detach()) == pytest.approx(
        total / len(data), rel=1e-5
    )


def test_batches_and_slots_beside_it_do_not_change_a_loss(adapters, data, monkeypatch):
    together = mean_loss(adapters, range(SLOTS), data)
    monkeypatch.setattr(sequence_loss, "TOKENS_AT_ONCE", 60)
    for slot in range(SLOTS):
        alone = mean_loss(adapters, [slot], data)[slot]
        torch.testing.assert_close(alone, together[slot], rtol=1e-5, atol=0)


def test_gradient_agrees_with_finite_differences(adapters, data):
    """Of the loss along a slot's A and B, by central differences of 1e-2: float32 leaves 1e-6 /
    1e-2, the third derivative about as much."""
    parameters = list(adapters.parameters_of(1).values())
    draw = torch.Generator().manual_seed(2)
    moves = [torch.randn(p.shape, generator=draw) / 30 for p in parameters]
    gradients = torch.autograd.grad(mean_loss(adapters, [1], data)[1], parameters)
    slope = float(sum((g * m).sum() for g, m in zip(gradients, moves, strict=True)))
    values = []
    with torch.no_grad():
        for step in (1e-2, -2e-2):
            for parameter, move in zip(parameters, moves, strict=True):
                parameter.add_(move, alpha=step)
            values.append(float(mean_loss(adapters, [1], data)[1]))
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(slope, rel=1e-2, abs=1e-3)


def test_close_by_the_steepest_slope_is_the_gradients_norm(adapters, data):
    """Central difference at 1e-2 along the gradient of rank 4."""
    start, gradient = dense_gradient(adapters, data)
    uphill = perturbations.steepest(gradient, 4)
    for slot, distance in ((0, 1e-2), (1, -1e-2)):
        perturbations.place(adapters, slot, uphill, distance)
        assert float(adapters.update_norm_sq(slot).detach().sqrt()) == pytest.approx(1e-2)
    above, below = mean_loss(adapters, [0, 1], data).values()
    expected = perturbations.length(uphill)
    assert float((above - below).detach()) / 2e-2 == pytest.approx(expected, rel=1e-2)
    assert float(below.detach()) < start < float(above.detach())
    assert smoothness(adapters, data, 1.0).gradient_norm == expected


def test_inner_product_is_that_of_the_matrices(adapters, data):
    _, gradient = dense_gradient(adapters, data)
    dense = sum((gradient[name] * d.detach()).sum() for name, d in update(adapters, 2).items())
    found = perturbations.inner_product(adapters, 2, gradient)
    assert float(found) == pytest.approx(float(dense), rel=1e-4)


def test_an_adapter_of_full_rank_follows_the_whole_gradient(tiny_folder, data):
    """Rank 32 is full in every layer, and more than some are wide: those are padded with zeros."""
    wide = open_adapters(tiny_folder, rank=32)
    found = smoothness(wide, data, 0.5)
    assert found.gradient_norm == pytest.approx(found.gradient_norm_full, rel=1e-5)
    narrow = smoothness(open_adapters(tiny_folder), data, 0.5)
    assert narrow.gradient_norm < narrow.gradient_norm_full
    assert narrow.gradient_norm_full == pytest.approx(found.gradient_norm_full, rel=1e-5)
    assert all(math.isfinite(one.ascent) for one in lipschitz(wide, data, [0.5], 0, 1, 4))


def test_bounds_grow_with_the_ball_and_the_ascent_exceeds_the_slope(adapters, data):
    radii = [1.0, 0.1, 3.0]
    found = lipschitz(adapters, data, radii, steps=4)
    assert [one.epsilon for one in found] == radii
    for bound in ("sampled", "ascent"):
        assert getattr(found[1], bound) <= getattr(found[0], bound) <= getattr(found[2], bound)
    slope = smoothness(adapters, data, 1.0).gradient_norm
    assert all(one.ascent >= slope > one.sampled for one in found)


def test_bounds_are_the_same_every_time_and_random_ones_in_any_company(adapters, data):
    radii = [0.1, 1.0, 3.0]
    found = lipschitz(adapters, data, radii, steps=2)
    torch.rand(3)  # the global generator plays no part
    assert lipschitz(adapters, data, radii, steps=2) == found
    (alone,) = lipschitz(adapters, data, radii[:1], steps=0)
    assert alone.sampled == pytest.approx(found[0].sampled, rel=1e-2)  # of losses 1e-6 apart
    (other,) = lipschitz(adapters, data, radii[:1], seed=1, steps=0)
    assert other.sampled != pytest.approx(alone.sampled, rel=1e-2)


def test_a_step_keeps_what_was_found_before_it(adapters, data):
    start, one = (lipschitz(adapters, data, [2.0], steps=steps)[0].ascent for steps in (0, 1))
    assert start <= one


def test_everything_is_left_as_it_was(adapters, data):
    model = adapters.model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    lipschitz(adapters, data, [0.5, 1.0], samples=1, steps=2)
    smoothness(adapters, data, 0.5)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert any(flags.values()) and not all(flags.values())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert parameter.grad is None or not parameter.grad.any(), name


def test_a_failure_leaves_weights_frozen_and_slots_as_they_were(adapters, monkeypatch):
    before = update(adapters, 0)

    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(sequence_loss, "_parts", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        smoothness(adapters, [], 1.0)
    assert not any(m.base.weight.requires_grad for m in adapters.modules.values())
    other = perturbations.factors(adapters, 1)
    with pytest.raises(KeyError), perturbations.borrowed(adapters):
        perturbations.place(adapters, 0, other | {"last": other.popitem()[1]}, 3.0)
    after = update(adapters, 0)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_radii_must_be_positive_and_fit_the_slots(adapters, data):
    for radii in ([0.0, 1.0], [1.0] * (SLOTS + 1)):
        with pytest.raises(ValueError, match="at least as many slots"):
            lipschitz(adapters, data, radii)
    with pytest.raises(ValueError, match="radius 0"):
        smoothness(adapters, data, 0.0)


def test_slots_on_top_of_another_adapter_are_refused(adapters, data):
    """Delta = 0 would not be the aligned model there."""
    module = next(iter(adapters.modules.values()))
    module.freeze(0, *(p.detach() for p in (module.lora_A["0"], module.lora_B["0"])), 1.0)
    with pytest.raises(ValueError, match="frozen slices"):
        smoothness(adapters, data, 1.0)
