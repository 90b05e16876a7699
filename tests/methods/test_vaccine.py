"""Vaccine's perturbation by hand, on a convex toy, and to first order on the tiny model."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from oracles import draws, step_on
from torch import Tensor, nn

from raycib.hooks.vaccine import worst_perturbation


class LinearLoss:
    """A step whose loss is sum_l <g_l, output of block l>: its gradient in that output is g_l."""

    def __init__(self, slopes: list[Tensor], curvature: float = 0.0) -> None:
        rows, seq, self.dim = slopes[0].shape
        self.slopes, self.curvature = slopes, curvature
        self.batch = SimpleNamespace(ids=torch.zeros(rows, seq, dtype=torch.long))
        self.totals = SimpleNamespace(tokens=1)
        block = type("ToyAttention", (nn.Module,), {})
        layers = [nn.ModuleList([block()]) for _ in slopes]
        decoder = nn.Module()
        decoder.layers = nn.ModuleList(layers)
        config = SimpleNamespace(num_hidden_layers=len(layers))
        self.model = SimpleNamespace(get_decoder=lambda: decoder, config=config)
        self.found: list[Tensor] = []

    def loss(self, outputs: list[Tensor]) -> Tensor:
        parts = [
            (g * x).sum() + self.curvature * (x * x).sum()
            for g, x in zip(self.slopes, outputs, strict=True)
        ]
        return torch.stack(parts).sum()

    def alone(self, outputs: list[Tensor]) -> Any:
        return SimpleNamespace(nll=self.loss(outputs))

    def perturb(self, found: list[Tensor]) -> None:
        self.found = found


def perturbation(
    step: LinearLoss, rho: float, steps: int = 1, norm: str = "sequence"
) -> list[Tensor]:
    one = {"p": nn.Parameter(torch.zeros(1))}
    worst_perturbation(rho, steps, norm)([step], one, lambda _: None)  # type: ignore[arg-type]
    return step.found


@pytest.mark.parametrize("unit", [1.0, 1e-6])
def test_vaccine_by_hand(unit: float):
    """g = (3, 0), (0, 4): norm 5 over both layers; rho = 2 gives 2/5 g = (1.2, 0), (0, 1.6). In any
    unit: a row's slope is small where its batch has many tokens."""
    slopes = [unit * torch.tensor([[[3.0, 0.0]]]), unit * torch.tensor([[[0.0, 4.0]]])]
    for norm in ("sequence", "batch"):
        first, second = perturbation(LinearLoss(slopes), 2.0, norm=norm)
        torch.testing.assert_close(first, torch.tensor([[[1.2, 0.0]]]))
        torch.testing.assert_close(second, torch.tensor([[[0.0, 1.6]]]))


@pytest.mark.parametrize("steps", [1, 3])
def test_squared_norms_add_up_to_rho_squared_for_each_row_or_for_the_batch(steps: int):
    """The slope stays the same all the way, so three steps of rho / 3 go straight to the border.
    Rows of very different slopes share one ball only with norm=batch."""
    slopes = [draws(3, 4, 5, seed=layer) for layer in range(2)]
    slopes = [g * torch.tensor([1.0, 10.0, 0.1])[:, None, None] for g in slopes]
    rows, batch = (
        torch.stack([x.square().sum(dim=(1, 2)) for x in found]).sum(dim=0)
        for found in (
            perturbation(LinearLoss(slopes), 0.7, steps, norm) for norm in ("sequence", "batch")
        )
    )
    torch.testing.assert_close(rows, torch.full((3,), 0.49))
    assert float(batch.sum()) == pytest.approx(0.49, rel=1e-5)
    shares = torch.stack([g.square().sum(dim=(1, 2)) for g in slopes]).sum(dim=0)
    torch.testing.assert_close(batch, 0.49 * shares / shares.sum())


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rho", [0.01, 0.5, 20.0])
def test_the_second_loss_of_a_convex_toy_is_no_smaller(rho: float, steps: int):
    """L(e) >= L(0) + <g, e> = L(0) + rho |g| where L is convex and e = rho g / |g|."""
    toy = LinearLoss([draws(2, 3, 4, seed=s) for s in (1, 2)], curvature=0.3)
    zero = toy.loss([torch.zeros_like(g) for g in toy.slopes])
    found = perturbation(toy, rho, steps)
    assert float(toy.loss(found)) >= float(zero) + 0.99 * rho


def test_a_small_perturbation_of_the_tiny_model_costs_rho_times_the_slope(tiny_slot):
    """To first order the loss of one row rises by rho |g|; with as many perturbed blocks as the
    model has layers. rho |g| is .0075 nats here, ten thousand times rounding."""
    rho, losses = 0.002, []
    for radius in (0.0, rho):
        step = step_on(tiny_slot, 1)
        parameters = tiny_slot.parameters_of(0)
        worst_perturbation(radius or 1e-9, 1, "sequence")([step], parameters, lambda _: None)
        losses.append(float(step.nll.sum().detach() / 5))
        added = step._group.perturbations[0]
        assert len(added) == tiny_slot.model.config.num_hidden_layers == 2
    leaves = [torch.zeros_like(x).requires_grad_() for x in added]
    slopes = torch.autograd.grad(step_on(tiny_slot, 1).alone(leaves).nll.sum() / 5, leaves)
    size = math.sqrt(sum(float(g.square().sum()) for g in slopes))
    assert all(g.abs().max() > 0 for g in slopes)
    assert losses[1] - losses[0] == pytest.approx(rho * size, rel=0.1)
    assert losses[1] > losses[0]
