"""The alignment tax, against information that can be worked out by hand."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor
from torch.nn import functional as F

from raycib.studies.tradeoff.alignment_tax import FOLDS, alignment_tax, probe_losses

LN2 = math.log(2)
CLOSE = 0.02
"""Nats. A probe of separable labels stops at the smallest ridge, some 0.001 nats above 0."""


def noise(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def cells(*sizes: int, each: int = 50) -> list[Tensor]:
    """Independent uniform variables of these sizes: every combination `each` times."""
    grid = torch.cartesian_prod(*(torch.arange(size) for size in sizes)).view(-1, len(sizes))
    return list(grid.repeat(each, 1).T)


def one_hot(values: Tensor) -> Tensor:
    return F.one_hot(values).float()


def test_labels_that_nothing_tells_cost_nothing():
    """Y independent of Z and C: all information is 0, up to what a probe of 96 features reads
    into noise; with 30 classes and an unregularised probe that would be several nats."""
    y = torch.randint(30, (512,), generator=torch.Generator().manual_seed(1))
    found = alignment_tax(noise(512, 96), noise(512, 96, seed=2), y)
    for value in (found.tax, found.tax_bound, found.information_zy, found.conditional_information):
        assert value == pytest.approx(0, abs=CLOSE)
    assert found.label_entropy == pytest.approx(math.log(30), abs=0.06)  # K / 2n = 0.03 too low
    assert (found.n, found.labels) == (512, 30)


def test_the_bound_is_tight_where_both_models_know_the_answer():
    """Z = C tells Y: I(Z;Y) = I(Y;C) = H(Y) = ln 4 and I(Z;Y|C) = 0, so Tax = I(Y;C)."""
    (y,) = cells(4)
    found = alignment_tax(one_hot(y), one_hot(y), y)
    assert found.label_entropy == pytest.approx(math.log(4))
    assert found.tax_bound == pytest.approx(math.log(4), abs=CLOSE)
    assert found.tax == pytest.approx(found.tax_bound, abs=CLOSE)
    assert found.conditional_information == pytest.approx(0, abs=CLOSE)


def test_a_representation_that_knows_nothing_pays_no_tax():
    """Z independent of (Y, C): I(Z;Y) = I(Z;Y|C) = 0, while the bound is I(Y;C) = ln 4."""
    (y,) = cells(4)
    found = alignment_tax(noise(200, 4), one_hot(y), y)
    assert found.tax == pytest.approx(0, abs=CLOSE)
    assert found.tax_bound == pytest.approx(math.log(4), abs=CLOSE)


def test_information_of_its_own_is_no_tax():
    """Y = (first bit, second bit), C the first. Z the second: I(Z;Y) = I(Z;Y|C) = ln 2, Tax = 0.
    Z both: I(Z;Y) = 2 ln 2, I(Z;Y|C) = ln 2, Tax = ln 2 = I(Y;C)."""
    first, second = cells(2, 2)
    y = 2 * first + second
    own = alignment_tax(one_hot(second), one_hot(first), y)
    assert own.tax == pytest.approx(0, abs=CLOSE)
    assert own.information_zy == pytest.approx(LN2, abs=CLOSE)
    both = alignment_tax(one_hot(y), one_hot(first), y)
    assert both.information_zy == pytest.approx(2 * LN2, abs=CLOSE)
    assert both.conditional_information == pytest.approx(LN2, abs=CLOSE)
    assert both.tax == pytest.approx(LN2, abs=CLOSE)
    assert both.tax_bound == pytest.approx(LN2, abs=CLOSE)


def test_knowing_the_reference_may_also_help():
    """Z, C independent signs and Y = Z + C: H(Y) = 1.5 ln 2, H(Y|Z) = ln 2, H(Y|C) = ln 2. So
    I(Z;Y) = ln 2 / 2, I(Z;Y|C) = ln 2, and Tax = -ln 2 / 2 lies far below I(Y;C) = ln 2 / 2."""
    z, c = (2.0 * bit[:, None] - 1 for bit in cells(2, 2))
    found = alignment_tax(z, c, (z + c).long().squeeze(1))
    assert found.label_entropy == pytest.approx(1.5 * LN2)
    assert found.tax == pytest.approx(-LN2 / 2, abs=CLOSE)
    assert found.tax_bound == pytest.approx(LN2 / 2, abs=CLOSE)


def test_two_noisy_views_of_a_bit():
    """Y = ±1, Z and C each Y plus their own N(0, 1). One view tells I(1), two as much as one of
    strength sqrt(2), I(m) = ln 2 - E log(1 + exp(-2 m x)), x ~ N(m, 1), where a logistic probe is
    exact. Tax = 2 I(1) - I(sqrt 2), with the standard error of 4000 rows."""

    def information(m: float) -> float:
        lost = quad(lambda x: norm.pdf(x, m) * math.log1p(math.exp(-2 * m * x)), m - 9, m + 9)[0]
        return LN2 - lost

    (y,) = cells(2, each=2000)
    z, c = (noise(4000, 1, seed) + 2 * y[:, None] - 1 for seed in (3, 4))
    found = alignment_tax(z, c, y)
    one, two = information(1), information(math.sqrt(2))
    assert found.tax == pytest.approx(2 * one - two, abs=4 * found.tax_se)
    assert found.tax_bound - found.tax == pytest.approx(two - one, abs=4 * found.slack_se)
    assert 0.002 < found.tax_se < 0.02


def test_a_safety_label_that_never_changes_costs_nothing():
    """C constant, as on harmless rows: I(Y;C) = 0, so Tax <= 0, and it is 0: I(Z;Y|C) = I(Z;Y)."""
    (y,) = cells(4, each=51)  # odd: folds of 26 and 25 rows a class
    found = alignment_tax(one_hot(y), torch.ones(204, 1), y)
    assert found.tax_bound == pytest.approx(0, abs=1e-4)
    assert found.tax == pytest.approx(0, abs=1e-4)
    assert found.information_zy == pytest.approx(math.log(4), abs=CLOSE)


def test_the_parts_add_up():
    """Tax = I(Z;Y) - I(Z;Y|C), and tax_bound - tax = CE(Y|Z) - CE(Y|Z,C)."""
    (y,) = cells(3, each=60)
    z, c = one_hot(y) + noise(180, 3), one_hot(y) + noise(180, 3, seed=1)
    found = alignment_tax(z, c, y)
    assert found.tax == pytest.approx(found.information_zy - found.conditional_information)


def test_more_to_fit_never_breaks_the_chain_rule():
    """C = Y with noise, Z 96 features of noise: a joint probe of 200 rows predicts worse than C
    alone, which the estimate falls back to; so I(Z;Y|C) >= 0 and Tax <= I(Y;C)."""
    (y,) = cells(4)
    c = one_hot(y) + 0.5 * noise(200, 4)
    found = alignment_tax(noise(200, 96, seed=1), c, y)
    assert found.conditional_information >= 0
    assert found.tax <= found.tax_bound


def test_one_answer_holds_no_information():
    found = alignment_tax(noise(20, 3), noise(20, 3), torch.full((20,), 7))
    assert (found.tax, found.tax_bound, found.label_entropy, found.tax_se) == (0, 0, 0, 0)
    assert (found.n, found.labels) == (20, 1)
    assert alignment_tax(noise(0, 3), noise(0, 3), torch.zeros(0, dtype=torch.long)).n == 0


def test_rare_labels_are_one_class_or_left_out():
    """Of 20 + 20 rows and some that occur once: four of those make a class, three do not."""
    frequent = [5] * 20 + [9] * 20
    merged = torch.tensor([*frequent, 1, 2, 11, 12])
    found = alignment_tax(noise(44, 3), noise(44, 3), merged)
    assert (found.n, found.labels) == (44, 3)
    shares = [20 / 44, 20 / 44, 4 / 44]
    assert found.label_entropy == pytest.approx(-sum(p * math.log(p) for p in shares))
    left_out = alignment_tax(noise(43, 3), noise(43, 3), merged[:43])
    assert (left_out.n, left_out.labels) == (40, 2)
    assert left_out.label_entropy == pytest.approx(LN2)


def test_names_units_and_axes_play_no_part():
    """Classes renamed in order, features rescaled, shifted and reordered: the same probes."""
    (y,) = cells(3, each=40)
    z, c = one_hot(y) + noise(120, 3), one_hot(y) + noise(120, 3, seed=1)
    found = alignment_tax(z, c, y)
    again = alignment_tax(1000 * z.flip(1) - 5, c / 7, 10 * y + 3)
    for field in ("tax", "tax_bound", "information_zy", "tax_se"):
        assert getattr(again, field) == pytest.approx(getattr(found, field), abs=1e-3)


def test_the_order_of_rows_only_deals_other_folds():
    """Within a few standard errors, as another seed is."""
    (y,) = cells(3, each=100)
    z, c = one_hot(y) + noise(300, 3), one_hot(y) + noise(300, 3, seed=1)
    found = alignment_tax(z, c, y)
    assert alignment_tax(z, c, y) == found
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    shuffled = alignment_tax(z[order], c[order], y[order])
    assert shuffled.tax == pytest.approx(found.tax, abs=2 * found.tax_se)
    assert shuffled.label_entropy == pytest.approx(found.label_entropy)


def test_no_row_is_predicted_by_a_probe_that_has_seen_it():
    """Each row has a feature of its own: fitted to all rows it would tell every label; held out
    it tells none. And a probe on more features than rows is fitted within the rows' span."""
    (y,) = cells(2, each=30)
    folds = torch.arange(60) // 2 % FOLDS
    losses = probe_losses(torch.eye(60).double(), y, folds)
    assert float(losses.mean()) == pytest.approx(LN2, abs=1e-3)
