"""Every method against numbers derived by hand, and against NumPy where a hand is too slow."""

import math
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from oracles import ROWS, draws, step_on, value_of
from torch import Tensor, nn

from raycib.data.chat import Encoded
from raycib.hooks.ema import WeightAverage
from raycib.hooks.safegrad import remove_conflict
from raycib.methods.cib import CIB
from raycib.models.adapters import update_norm_sq
from raycib.models.group_step import GroupStep
from raycib.models.step import Step, steps_of
from raycib.models.tensors import Totals, collate, together
from raycib.objectives.cib import ContrastiveBottleneck
from raycib.objectives.constrained_token import ConstrainedTokens, token_weights
from raycib.objectives.kl import divergence
from raycib.objectives.orthogonality import Orthogonality, overlap
from raycib.objectives.parameter_distance import ParameterDistance
from raycib.objectives.safety_anchor import SafetyAnchor

# KL


def test_kl_by_hand():
    """Reference (.5, .5), own (.9, .1). KL(ref, own) = .5 ln(.5/.9) + .5 ln(.5/.1) = .510826;
    KL(own, ref) = .9 ln(.9/.5) + .1 ln(.1/.5) = .368064."""
    reference, own = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    assert float(divergence(own, reference, "forward")) == pytest.approx(0.510826, abs=1e-6)
    assert float(divergence(own, reference, "reverse")) == pytest.approx(0.368064, abs=1e-6)


def test_a_constant_for_each_vocabulary_entry_changes_the_kl_and_not_the_official_one():
    """Vaccine's KLTrainer takes the softmax over time: adding c_v to the logits of entry v at all
    times leaves it as it is, though every next-token distribution is another one."""
    own, reference = draws(7, 5), draws(7, 5, seed=1)
    moved = own + 3 * draws(5, seed=2)

    def official(logits: Tensor) -> Tensor:
        p, q = reference.log_softmax(dim=0), logits.log_softmax(dim=0)
        return (p.exp() * (p - q)).sum()

    torch.testing.assert_close(official(moved), official(own))
    for direction in ("forward", "reverse"):
        before, after = (divergence(x, reference, direction) for x in (own, moved))
        assert ((after - before).abs() > 0.01).all()


def test_a_constant_for_each_token_changes_no_kl():
    """A softmax over the vocabulary does not see it."""
    own, reference = draws(7, 5), draws(7, 5, seed=1)
    moved = divergence(own + draws(7, 1, seed=2), reference + 4, "forward")
    torch.testing.assert_close(moved, divergence(own, reference, "forward"))


# O-LoRA


def test_o_lora_by_hand():
    """Earlier rows e1, e2; new rows e3, e1/2 - e2/4: products 0, 0, 1/2, -1/4. Sum of sizes .75,
    of squares .3125."""
    e = torch.eye(4)
    new, earlier = torch.stack([e[2], 0.5 * e[0] - 0.25 * e[1]]), e[:2]
    assert float(overlap(new, earlier)) == 0.75
    assert float(overlap(new, earlier, "squared")) == 0.3125


def test_orthogonal_rows_do_not_overlap():
    q = torch.linalg.qr(draws(8, 8)).Q
    for norm in ("l1", "squared"):
        assert float(overlap(q[:3], q[3:], norm)) == pytest.approx(0, abs=1e-5)


def test_o_lora_with_nothing_below_is_an_error_not_a_zero(tiny_slot):
    objective = Orthogonality(0.5, "l1", "lora_A", mean=False)
    with pytest.raises(ValueError, match="no earlier adapter lies below"):
        objective(step_on(tiny_slot, 0))


# SafeGrad


def test_safegrad_by_hand():
    """g = (1, -1), s = (0, 1): g . s = -1, so g + s = (1, 0) is left. The vector may be spread over
    parameters: it is one product for all."""
    (found,) = remove_conflict([torch.tensor([1.0, -1.0])], [torch.tensor([0.0, 1.0])])
    assert found.tolist() == [1, 0]
    parts = remove_conflict(
        [torch.tensor([1.0]), torch.tensor([-1.0])], [torch.tensor([0.0]), torch.tensor([1.0])]
    )
    assert [float(part) for part in parts] == [1, 0]


def test_a_gradient_without_conflict_is_left_alone():
    for g, s in (([1.0, 1.0], [0.0, 1.0]), ([1.0, 0.0], [0.0, 1.0]), ([1.0, -2.0], [0.0, 0.0])):
        (found,) = remove_conflict([torch.tensor(g)], [torch.tensor(s)])
        assert found.tolist() == g


def test_what_is_left_of_a_gradient_has_no_conflict():
    g, s = [draws(4, 3), draws(5)], [draws(4, 3, seed=1), draws(5, seed=2)]
    if sum(float((a * b).sum()) for a, b in zip(g, s, strict=True)) > 0:
        s = [-one for one in s]
    left = remove_conflict(g, s)
    assert sum(float((a * b).sum()) for a, b in zip(left, s, strict=True)) == pytest.approx(
        0, abs=1e-5
    )


# Constrained tokens


def test_constrained_weights_by_hand():
    """w = 2 (1 - sigmoid(beta d)) with d = log p - log p_ref. At d = 0 it is 1; a token three times
    as likely with beta 1: sigmoid(ln 3) = 3/4, w = 1/2; a third as likely: w = 3/2; d = 100: the
    floor .001."""
    d = torch.tensor([[0.0, math.log(3), -math.log(3), 100.0]])
    weights = token_weights(torch.zeros(1, 4), d, torch.ones(1, 4))
    torch.testing.assert_close(weights, torch.tensor([[1.0, 0.5, 1.5, 0.001]]))


class Scored(Step):
    """A step of two rows of which only the losses matter: prompts of 2 and 1 tokens, responses of
    7 and 3."""

    batch = collate([Encoded((1, 1), (2,) * 7), Encoded((1,), (2,) * 3)], [0, 1])
    totals = Totals(rows=2, tokens=10)
    nll = torch.empty(0)

    def __init__(self, nll: Tensor, gained: float) -> None:
        self.nll = nll
        self.gained = gained

    def reference_tokens(self, tokens: Any = "", layer: Any = "") -> Tensor:
        return self.nll.detach()[self.batch.labels >= 0] + self.gained


def weights_of(beta: float, gained: float) -> Tensor:
    """The gradient of the loss in each token's -log p, times the 10 tokens: its weight."""
    nll = (Scored.batch.labels >= 0).float().requires_grad_()
    objective = ConstrainedTokens(beta, 5.0, 20.0)
    term = objective(Scored(nll, gained))["constrained"]
    (found,) = torch.autograd.grad(term.value, nll)
    return 10 * found * (Scored.batch.labels >= 0)


def test_constrained_tokens_weigh_1_where_the_model_has_not_moved():
    torch.testing.assert_close(weights_of(0.1, 0.0), (Scored.batch.labels >= 0).float())


def test_constrained_tokens_are_strictest_with_the_first_five():
    """d = 1, beta = .1: sigma(-.5) for the first response token, sigma(-2) for tokens 2 to 5,
    sigma(-.1) after them, times 2. They count from the response's start in every row."""
    first, early, late = (2 / (1 + math.exp(x)) for x in (0.5, 2.0, 0.1))
    by_hand = torch.tensor(
        [[0, 0, first, *[early] * 4, late, late], [0, first, early, early, 0, 0, 0, 0, 0]]
    )
    torch.testing.assert_close(weights_of(0.1, 1.0), by_hand)


# EMA


def test_ema_in_closed_form():
    """Weights 1, 2, 4, 8 with decay 1/4: 1 -> 7/4 -> 55/16 -> 439/64; the last step leaves it in
    the weights' place, earlier ones leave the weights alone."""
    parameters = {"a.b": nn.Parameter(torch.tensor([1.0]))}
    average = WeightAverage(parameters, 0.25)
    for weight, expected, last in (
        (2.0, 7 / 4, False),
        (4.0, 55 / 16, False),
        (8.0, 439 / 64, True),
    ):
        with torch.no_grad():
            parameters["a.b"].fill_(weight)
        average(parameters, last)
        assert float(average.get_buffer("a/b")) == expected
        with suppress(OSError), average.ended(parameters):  # a point that cannot be written
            assert float(parameters["a.b"].detach()) == expected
            raise OSError
        assert float(parameters["a.b"].detach()) == (expected if last else weight)


# SBR


def test_sbr_by_hand():
    """z - zref = (1, -1), (3, 1): means of squares 1 and 5, of both rows 3; of an effective batch
    of four rows these two are half."""
    z, zref = torch.tensor([[1.0, 0.0], [3.0, 3.0]]), torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    for rows, expected in ((2, 3.0), (4, 1.5)):
        safety = SimpleNamespace(
            pooled=lambda *_: z, reference=lambda *_: zref, totals=SimpleNamespace(rows=rows)
        )
        safety.alone = lambda safety=safety: safety
        term = SafetyAnchor(50.0)(SimpleNamespace(safety=safety))["anchor"]  # type: ignore[arg-type]
        assert float(term.value) == expected
        assert term.weight == 50


def test_sbr_does_not_read_the_answers(tiny_slot):
    """Other refusals after the same prompts: the same term, to rounding."""
    same_prompt = [Encoded((2, 3, 4), (9, 9, 1, 5)), Encoded((9,), (1,))]
    values = []
    for data in (ROWS[:2], same_prompt):
        batch, totals = {0: collate(data, [0, 1])}, {0: Totals(2, 1)}
        safety = steps_of(GroupStep(tiny_slot, *together(batch), totals, {}))[0]
        values.append(value_of(SafetyAnchor(1.0)(SimpleNamespace(safety=safety)), "anchor"))  # type: ignore[arg-type]
    assert values[0] > 1e-4
    assert values[0] == pytest.approx(values[1], rel=1e-4)


# Case II

B = torch.tensor([[1.0, 2], [0, 1], [3, 0]])
A = torch.tensor([[1.0, 0, 2, 1], [0, 1, 1, -1]])


def test_the_distance_by_hand():
    """B A = [[1,2,4,-1],[0,1,1,-1],[3,0,6,3]]: squares 22 + 3 + 54 = 79, and 4 * 79 with s = 2."""
    assert (B @ A).tolist() == [[1, 2, 4, -1], [0, 1, 1, -1], [3, 0, 6, 3]]
    assert float(update_norm_sq(A, B, 1)) == 79
    assert float(update_norm_sq(A, B, 2)) == 316


def test_the_distance_s_gradients_by_hand():
    """2 s² B (A A') and 2 s² (B'B) A, with A A' = [[6,1],[1,3]] and B'B = [[10,2],[2,5]], s = 2."""
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    of_a, of_b = torch.autograd.grad(update_norm_sq(a, b, 2), (a, b))
    torch.testing.assert_close(of_b, 8 * B @ torch.tensor([[6.0, 1], [1, 3]]))
    torch.testing.assert_close(of_a, 8 * torch.tensor([[10.0, 2], [2, 5]]) @ A)


def test_the_distance_knows_the_update_and_not_its_factors():
    """(B R)(R^-1 A) = B A."""
    r = torch.tensor([[2.0, 1], [0, 0.5]])
    assert float(update_norm_sq(r.inverse() @ A, B @ r, 1)) == pytest.approx(79, rel=1e-6)


def test_the_distance_s_gradient_at_the_start_is_zero_not_nan():
    a, b = A.clone().requires_grad_(), torch.zeros_like(B).requires_grad_()
    of_a, of_b = torch.autograd.grad(update_norm_sq(a, b, 2), (a, b))
    assert not of_a.any()
    assert not of_b.any()


def test_the_distance_counts_once_a_step(tiny_slot):
    """Micro-batches of one and two rows of three: shares 1/3 and 2/3."""
    whole = float(tiny_slot.update_norm_sq(0).detach())
    objective, found = ParameterDistance(0.1), []
    for examples in ([0], [1, 2]):
        totals = {0: Totals(3, 10)}
        step = steps_of(GroupStep(tiny_slot, *together({0: collate(ROWS, examples)}), totals, {}))[
            0
        ]
        found.append(value_of(objective(step), "distance"))
    assert whole > 1
    assert found == pytest.approx([whole / 3, 2 * whole / 3])


# CIB without negatives


def test_the_anchor_alone_is_one_minus_the_cosine_from_the_first_step_on():
    """z = (1, 0), zref = (.6, .8): 1 - .6; z = (0, 2), zref = (0, 5): 0. Mean of two rows .2. Its
    gradient in the first z is -(zref^ - .6 z^)/|z| / 2 = (0, -.4)."""
    z = torch.tensor([[1.0, 0.0], [0.0, 2.0]], requires_grad=True)
    zref = torch.tensor([[0.6, 0.8], [0.0, 5.0]])

    class Still(Step):
        totals = Totals(rows=2, tokens=2)

        def __init__(self) -> None:
            pass

        def pooled(self, *_: Any) -> Tensor:
            return z

        def reference(self, *_: Any) -> Tensor:
            return zref

    objective = ContrastiveBottleneck(CIB(lam=3.0, num_negatives=0), dim=2)
    objective.begin_step(0, torch.Generator())
    term = objective(Still())["contrast"]
    assert float(term.value.detach()) == pytest.approx(0.2)
    assert term.weight == 3
    (gradient,) = torch.autograd.grad(term.value, z)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, -0.4], [0.0, 0.0]]))
