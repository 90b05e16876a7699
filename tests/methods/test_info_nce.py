"""InfoNCE and hardness, by hand and in their limits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import random_rows, rows
from torch.nn import functional as F

from raycib.objectives.cib import hardness, info_nce


def test_info_nce_by_hand():
    """z = (1, 0), zref = (.6, .8), negatives (0, 1) and (-1, 0), tau = 0.2: cosines .6, 0, -1.
    L = ln(e^3 + e^0 + e^-5) - 3 = ln(1 + e^-3 + e^-8) = 0.04890685 nats; I = ln 3 - L."""
    loss = info_nce(rows([1, 0]), rows([0.6, 0.8]), rows([0, 1], [-1, 0]), temperature=0.2)
    by_hand = math.log(1 + math.exp(-3) + math.exp(-8))
    assert by_hand == pytest.approx(0.04890685, abs=1e-8)
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)
    assert math.log(3) - float(loss) == pytest.approx(1.04970544, abs=1e-6)


def test_hardness_by_hand():
    """The same rows with a loss of 2 nats a token: h = (1 - 0.6) * 2 = 0.8. A row that has moved
    by a hundredth of its length is harder than one that has not: 1 - 1.0001^-.5 = .00005."""
    found = hardness(rows([1, 0]), rows([0.6, 0.8]), torch.tensor([2.0]))
    assert float(found) == pytest.approx(0.8)
    little = hardness(rows([1, 0.01]), rows([1, 0]), torch.tensor([2.0]))
    assert float(little) == pytest.approx(0.0001, rel=0.01)


@pytest.mark.parametrize("dim", [6, 300, 4096])
def test_rows_that_have_not_moved_are_equally_hard(dim: int):
    """cos(v, v) rounds to more or less than 1, the more so when v was computed in another batch.
    Ranked by that noise, the queue would depend on the size of micro-batches."""
    v = random_rows(500, dim)
    again = v * (1 + 1e-7 * random_rows(500, dim, seed=1))
    assert 0 < (1 - F.cosine_similarity(v, again)).abs().max() < 1e-6
    assert (hardness(v, again, torch.full((500,), 3.0)) == 0).all()


@pytest.mark.parametrize("negatives", [1, 2, 63])
def test_equal_cosines_cost_log_k_plus_1(negatives: int):
    """Every similarity is the same: the positive is one of K + 1 equals."""
    z, other = random_rows(1), random_rows(1, seed=1)
    loss = info_nce(z, other, other.expand(negatives, -1), temperature=0.2)
    assert float(loss) == pytest.approx(math.log(negatives + 1), rel=1e-6)


@pytest.mark.parametrize(("shared", "centred"), [(0.5, False), (0.9, False), (0.9, True)])
def test_its_minimum_lies_across_what_all_references_share(shared: float, centred: bool):
    """Where the loss is lowest, z is orthogonal to the references' mean m, not at its own reference
    r: along r - m, at cos(z, r) = (1 - r.m) / |r - m| = sqrt(1 - c), c = r.m = m.m being the mean
    cosine between references. Rows whose mean was taken off, and which share nothing, are best
    where they are. 0.03 is for 300 rows of 64 numbers, whose cosines differ."""
    own = F.normalize(random_rows(300, 64), dim=-1)
    r = own * math.sqrt(1 - shared) + math.sqrt(shared) * F.normalize(random_rows(1, 64, 1), dim=-1)
    r = F.normalize(r - r.mean(dim=0) if centred else r, dim=-1)
    others = ~torch.eye(len(r), dtype=torch.bool)
    z = r.clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        info_nce(z, r, r, 0.2, others).mean().backward()
        optimizer.step()
    cosines = F.normalize(z.detach(), dim=-1) @ r.T
    mean_cosine = float((r @ r.T)[others].mean())
    assert mean_cosine == pytest.approx(0 if centred else shared, abs=0.01)
    assert float(cosines[others].mean()) == pytest.approx(0, abs=0.03)
    assert float(cosines.diagonal().mean()) == pytest.approx(math.sqrt(1 - mean_cosine), abs=0.03)


def test_no_negatives_cost_nothing():
    z, nothing = random_rows(3), torch.empty(0, 6)
    assert info_nce(z, random_rows(3, seed=1), nothing, 0.2).tolist() == [0, 0, 0]
    none = torch.zeros(3, 4, dtype=torch.bool)
    loss = info_nce(z, random_rows(3, seed=1), random_rows(4, seed=2), 0.2, none)
    assert loss.tolist() == [0, 0, 0]


def test_a_row_without_negatives_has_a_gradient_of_zero_not_nan():
    z = random_rows(2).requires_grad_()
    allowed = torch.tensor([[True, True], [False, False]])
    info_nce(z, random_rows(2, seed=1), random_rows(2, seed=2), 0.2, allowed).sum().backward()
    assert z.grad is not None
    assert z.grad[1].tolist() == [0.0] * 6
    assert z.grad[0].abs().max() > 0


def test_only_allowed_negatives_count():
    z, positive, negatives = random_rows(2), random_rows(2, seed=1), random_rows(5, seed=2)
    allowed = torch.tensor([[True, False, True, False, False], [False, True, False, True, True]])
    loss = info_nce(z, positive, negatives, 0.2, allowed)
    for row in range(2):
        own = slice(row, row + 1)
        alone = info_nce(z[own], positive[own], negatives[allowed[row]], 0.2)
        torch.testing.assert_close(loss[own], alone)


@given(st.permutations(range(7)))
def test_the_order_of_negatives_does_not_matter(order: list[int]):
    z, positive, negatives = random_rows(3), random_rows(3, seed=1), random_rows(7, seed=2)
    permuted = info_nce(z, positive, negatives[order], 0.2)
    torch.testing.assert_close(permuted, info_nce(z, positive, negatives, 0.2))


@given(*[st.floats(1e-3, 1e3)] * 3)
def test_lengths_of_vectors_do_not_matter(a: float, b: float, c: float):
    """A cosine knows directions only."""
    z, positive, negatives = random_rows(3), random_rows(3, seed=1), random_rows(7, seed=2)
    scaled = info_nce(a * z, b * positive, c * negatives, 0.2)
    torch.testing.assert_close(scaled, info_nce(z, positive, negatives, 0.2), rtol=1e-4, atol=1e-5)


def test_cosines_are_float32_even_of_bfloat16_vectors():
    """bfloat16 has 8 bits: beside 1 it knows 0.996 and nothing nearer. cos((1, 0), (1, 1/16)) =
    0.99805, so a bfloat16 cosine would be 1 and the drift 0; in float32 it is 1 - (1 + 2^-8)^-.5
    = 0.00194742."""
    z, reference = (v.bfloat16() for v in (rows([1, 0]), rows([1, 0.0625])))
    drift = hardness(z, reference, torch.ones(1).bfloat16())
    assert drift.dtype == torch.float32
    assert float(drift) == pytest.approx(1 - (1 + 2**-8) ** -0.5, rel=1e-3)
    loss = info_nce(z, reference, z, 0.01)
    assert loss.dtype == torch.float32
    # ln(1 + e^{(1 - cos) / tau}) with tau = 0.01
    assert float(loss) == pytest.approx(math.log1p(math.exp(0.194742)), rel=1e-4)


def test_at_the_reference_only_the_negatives_push():
    """d cos(z, zref) / dz = (zref^ - cos * z^) / |z| is 0 where z = zref. The loss there still has
    a gradient, all of it from the negatives: sum_j p_j d cos(z, n_j)/dz / tau."""
    z, negatives = random_rows(1).requires_grad_(), random_rows(3, seed=2)
    (pull,) = torch.autograd.grad(F.cosine_similarity(z, z.detach(), dim=-1).sum(), z)
    assert pull.abs().max() < 1e-6
    (push,) = torch.autograd.grad(info_nce(z, z.detach(), negatives, 0.2).sum(), z)
    unit, others = F.normalize(z.detach(), dim=-1), F.normalize(negatives, dim=-1)
    cosines = unit @ others.T
    shares = torch.cat([torch.ones(1, 1), cosines], dim=1).div(0.2).softmax(dim=1)[:, 1:]
    by_hand = (shares[..., None] * (others - cosines.T * unit)).sum(1) / 0.2 / z.detach().norm()
    torch.testing.assert_close(push, by_hand, rtol=1e-4, atol=1e-6)
    assert push.norm() > 0.01
