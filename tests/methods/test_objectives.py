"""The losses against numbers derived by hand, identities, and an independent NumPy version."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from fake_step import FakeStep
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles import random_rows, rows
from torch import Tensor

from raycib.methods.cib import CIB
from raycib.objectives import LossTerms
from raycib.objectives.cib import ContrastiveBottleneck


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


@dataclass
class Queued:
    """One row of the independent queue."""

    step: int
    number: int
    example: int
    current: np.ndarray
    reference: np.ndarray
    hardness: float


class Independent:
    """CIB's objective in float64 and plain lists, written from the paper and not from the code."""

    def __init__(self, options: CIB) -> None:
        self.options = options
        self.queue: list[Queued] = []
        self.count = 0

    def negatives(self, step: int, drawn: list[int]) -> list[Queued] | None:
        """Candidates of this step; `drawn` is the order in which a uniform draw takes rows, which
        are numbered by age and, of one step, by example."""
        options = self.options
        if options.max_age is not None:
            self.queue = [row for row in self.queue if row.step >= step - options.max_age]
        if len(self.queue) < options.num_negatives:
            return None
        if options.draw == "uniform":
            aged = sorted(self.queue, key=lambda row: (row.step, row.example))
            return [aged[place] for place in drawn[: options.num_negatives]]
        if options.draw == "hardest":
            ranked = sorted(self.queue, key=lambda row: (-row.hardness, self.queue.index(row)))
            return ranked[: options.num_negatives]
        return list(self.queue)

    def loss(
        self,
        z: np.ndarray,
        zref: np.ndarray,
        own: int,
        candidates: list[Queued],
        mean: np.ndarray,
    ) -> float:
        """-ln of the positive's share among itself and the row's negatives."""
        options = self.options
        shift = mean if options.center else np.zeros_like(mean)
        z, zref = unit(z - shift), unit(zref - shift)
        vectors = []
        for row in candidates:
            if options.exclude_self and row.example == own:
                continue
            vector = row.reference if options.negatives == "reference" else row.current
            vectors.append(unit(vector - shift))
        if options.draw == "semihard":
            vectors = [v for v in vectors if z @ v < z @ zref]
        if options.draw in ("most_similar", "semihard"):
            vectors = sorted(vectors, key=lambda v: -(zref @ v))[: options.num_negatives]
        shares = [math.exp(z @ v / options.temperature) for v in [zref, *vectors]]
        return -math.log(shares[0] / sum(shares))

    def push(self, step: int, rows: list[tuple[int, np.ndarray, np.ndarray, float]], mean) -> None:
        shift = mean if self.options.center else np.zeros_like(mean)
        for own, z, zref, loss in rows:
            drift = max(0.0, 1 - unit(z - shift) @ unit(zref - shift))
            self.queue.append(Queued(step, self.count, own, z, zref, drift * loss))
            self.count += 1
        if self.options.queue == "hardest":
            self.queue.sort(key=lambda row: (-row.hardness, row.number))
        else:
            self.queue.sort(key=lambda row: -row.number)
        del self.queue[self.options.queue_size :]


OPTIONS = st.builds(
    CIB,
    lam=st.sampled_from([0.5, 5.0]),
    temperature=st.sampled_from([0.1, 0.2, 1.0]),
    queue_size=st.integers(3, 12),
    num_negatives=st.integers(1, 6),
    queue=st.sampled_from(["hardest", "recent"]),
    draw=st.sampled_from(["uniform", "hardest", "most_similar", "semihard"]),
    negatives=st.sampled_from(["reference", "current"]),
    exclude_self=st.booleans(),
    center=st.booleans(),
    max_age=st.sampled_from([None, 1, 2]),
).filter(
    # There a row's own reference may be a candidate, exactly as similar as the positive, and
    # rounding decides whether it is "less similar".
    lambda one: one.exclude_self or one.draw != "semihard" or one.negatives == "current"
)
DIM, TASK_ROWS, BATCH, STEPS = 5, 7, 4, 6


@settings(max_examples=150)
@given(OPTIONS, st.integers(0, 2**16))
@example(CIB(queue_size=6, num_negatives=2, queue="recent", draw="hardest"), 0)
@example(CIB(queue_size=6, num_negatives=2, center=True), 0)
def test_the_objective_agrees_with_an_independent_version(options: CIB, seed: int):
    """Six steps of four rows, each cut in two micro-batches: the same loss at every step and the
    same queue, slot by slot, after it."""
    draw = np.random.default_rng(seed)
    objective, independent = ContrastiveBottleneck(options, DIM), Independent(options)
    references = draw.normal(size=(TASK_ROWS, DIM)) + 1.0  # off centre, so that centring matters
    mean = references.mean(axis=0)

    def tensor(v: np.ndarray) -> Tensor:
        return torch.tensor(v, dtype=torch.float32)

    for step in range(STEPS):
        examples = draw.permutation(TASK_ROWS)[:BATCH].tolist()
        zref = references[examples]
        z = zref + draw.normal(size=zref.shape)
        losses = draw.uniform(0.1, 3.0, BATCH)
        objective.begin_step(step, torch.Generator().manual_seed(step))
        held = len(objective.queue)
        drawn = torch.randperm(held, generator=torch.Generator().manual_seed(step)).tolist()
        found = 0.0
        for half in (slice(0, 2), slice(2, 4)):
            moving = tensor(z[half]).requires_grad_()
            parts = (moving, tensor(zref[half]), tensor(losses[half]), examples[half])
            terms = objective(FakeStep(*parts, tensor(mean), BATCH))
            begun = step >= options.idle_steps(BATCH)
            assert bool(terms) == begun or (begun and options.max_age), "hard rows may expire"
            if terms:
                found += float(terms["contrast"].value.detach())
                assert terms["contrast"].weight == options.lam
        candidates = independent.negatives(step, drawn)
        assert (candidates is None) == (not terms)
        if candidates is not None:
            expected = [
                independent.loss(z[row], zref[row], examples[row], candidates, mean)
                for row in range(BATCH)
            ]
            assert found == pytest.approx(np.mean(expected), rel=1e-4, abs=1e-5)
        objective.end_step(step, objective.observations())
        rows = list(zip(examples, z, zref, losses, strict=True))
        independent.push(step, rows, mean)
        held = len(objective.queue)
        assert objective.queue.example[:held].tolist() == [r.example for r in independent.queue]
        assert objective.queue.pushed[:held].tolist() == [r.step for r in independent.queue]
        np.testing.assert_allclose(
            objective.queue.hardness[:held], [r.hardness for r in independent.queue], atol=1e-5
        )


def one_step(options: CIB, examples: list[int], seed: int = 0) -> tuple[LossTerms, Tensor]:
    """The second step of an objective whose queue holds six rows, and its z."""
    objective, mean = ContrastiveBottleneck(options, 6), torch.zeros(6)
    objective.begin_step(0, torch.Generator())
    parts = (random_rows(6, seed=1), random_rows(6, seed=2), torch.ones(6))
    objective(FakeStep(*parts, list(range(6)), mean, 6))
    objective.end_step(0, objective.observations())
    objective.begin_step(1, torch.Generator().manual_seed(seed))
    z = random_rows(len(examples), seed=3).requires_grad_()
    zref = random_rows(len(examples), seed=4).requires_grad_()
    objective.queue.reference.requires_grad_()
    losses = torch.ones(len(examples), requires_grad=True)
    step = FakeStep(z, zref.detach(), losses, examples, mean, len(examples))
    terms = objective(step)
    if terms:
        terms["contrast"].value.backward()
        assert losses.grad is None
    return terms, z


@pytest.mark.parametrize("draw", ["uniform", "hardest", "most_similar", "semihard"])
@pytest.mark.parametrize("negatives", ["reference", "current"])
def test_gradient_flows_into_z_alone(draw: str, negatives: str):
    options = CIB.model_validate(
        {"queue_size": 6, "num_negatives": 3, "draw": draw, "negatives": negatives}
    )
    terms, z = one_step(options, [10, 11])
    assert terms
    assert z.grad is not None
    assert z.grad.abs().sum() > 0


def test_a_cold_queue_costs_nothing():
    """Six rows are queued: K = 6 is a start, K = 7 is not."""
    assert one_step(CIB(queue_size=8, num_negatives=6), [10])[0]
    assert not one_step(CIB(queue_size=8, num_negatives=7), [10])[0]


@pytest.mark.parametrize("draw", ["uniform", "hardest", "most_similar", "semihard"])
def test_without_negatives_the_anchor_alone_is_left(draw: str):
    """K = 0: the mean of 1 - cos(z, zref) from the first step on, whatever the queue would do. For
    z = (1, 0), (1, 0) and zref = (.6, .8), (0, -2): (.4 + 1) / 2 = .7."""
    options = CIB.model_validate({"queue_size": 6, "num_negatives": 0, "draw": draw, "lam": 3.0})
    objective = ContrastiveBottleneck(options, 2)
    objective.begin_step(0, torch.Generator())
    z = rows([1, 0], [1, 0]).requires_grad_()
    parts = (z, rows([0.6, 0.8], [0, -2]), torch.ones(2), [0, 1], torch.zeros(2), 2)
    term = objective(FakeStep(*parts))["contrast"]
    assert float(term.value.detach()) == pytest.approx(0.7)
    assert term.weight == 3.0
    term.value.backward()
    # d(1 - cos)/dz = -(zref^ - cos z^) / |z|, halved by the mean.
    torch.testing.assert_close(z.grad, rows([0, -0.4], [0, 0.5]))
    objective.end_step(0, objective.observations())
    assert len(objective.queue) == 0, "nothing is kept for nobody"


def test_the_anchor_alone_can_be_centred():
    """zref - mean = (0, 1), z - mean = (1, 1): cos = 1 / sqrt 2."""
    objective = ContrastiveBottleneck(CIB(num_negatives=0, center=True), 2)
    objective.begin_step(0, torch.Generator())
    parts = (rows([2, 1]), rows([1, 1]), torch.ones(1), [0], torch.tensor([1.0, 0.0]), 1)
    value = objective(FakeStep(*parts))["contrast"].value
    assert float(value) == pytest.approx(1 - 2**-0.5)


def test_a_row_is_not_its_own_negative():
    """With all six queued rows as candidates, row 2 has five negatives, a stranger six."""
    options = CIB(queue_size=6, num_negatives=6, temperature=1e4)  # so hot that L = ln(K + 1)
    own, stranger = (one_step(options, [n])[0]["contrast"].value for n in (2, 99))
    assert float(own.detach()) == pytest.approx(math.log(6), rel=1e-3)
    assert float(stranger.detach()) == pytest.approx(math.log(7), rel=1e-3)
    same = one_step(options.model_copy(update={"exclude_self": False}), [2])[0]
    assert float(same["contrast"].value.detach()) == pytest.approx(math.log(7), rel=1e-3)


def test_negatives_are_drawn_once_a_step_from_its_generator_alone():
    options = CIB(queue_size=6, num_negatives=2)
    terms = [one_step(options, [10], seed)[0] for seed in (1, 1, 2, 3)]
    values = [float(each["contrast"].value.detach()) for each in terms]
    assert values[0] == values[1]
    assert len(set(values)) > 1
