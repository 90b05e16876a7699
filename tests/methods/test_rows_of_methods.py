"""Methods that choose rows: a random subset of the task, and refusals mixed into it."""

import itertools

import pytest
import torch
from menu import BASE
from oracles import SAFETY

from raycib.data.chat import Encoded
from raycib.methods.case1 import Case1
from raycib.methods.random_subset import RandomSubset
from raycib.methods.safe_lora import SafeLoRA
from raycib.methods.safegrad import SafeGrad
from raycib.methods.safety_mix import SafetyMix
from raycib.methods.sbr import SBR

TASK = [Encoded((n,), (1,)) for n in range(50)]
REFUSALS = [Encoded((n,), (2,)) for n in range(20)]


@pytest.mark.parametrize(("fraction", "count"), [(0.8, 40), (0.01, 1), (0.5, 25), (0.001, 1)])
def test_a_random_subset_is_a_part_in_the_task_s_order(fraction: float, count: int):
    options = RandomSubset(fraction=fraction)
    found = options.build().rows(TASK, [], 3)
    assert len(found) == len(set(found)) == count == options.rows_trained(50)
    assert found == [row for row in TASK if row in found]


def test_a_random_subset_is_a_function_of_the_seed():
    choose = RandomSubset(fraction=0.5).build().rows
    torch.manual_seed(1)
    first = choose(TASK, [], 0)
    torch.manual_seed(2)
    assert choose(TASK, [], 0) == first
    assert len({tuple(choose(TASK, [], seed)) for seed in range(4)}) == 4


def test_strengths_that_are_one_minus_a_setting_are_those_asked_for():
    """1 - .7 is not .3 in binary: as a strength it would be a point of its own."""
    assert RandomSubset.at(0.3) == RandomSubset(fraction=0.7)
    assert RandomSubset(fraction=0.7).strength == 0.3
    assert SafeLoRA.at(0.3, base=BASE) == SafeLoRA(threshold=-0.7, base=BASE)
    assert SafeLoRA(threshold=-0.7, base=BASE).strength == 0.3
    assert SafeLoRA.at(3, base=BASE, choose="number").strength == 3


def test_every_row_is_as_likely_in_a_subset():
    """400 subsets of half the rows: each row in 200 of them, standard deviation 10."""
    choose = RandomSubset(fraction=0.5).build().rows
    found = list(itertools.chain.from_iterable(choose(TASK, [], seed) for seed in range(400)))
    counts = [found.count(row) for row in TASK]
    assert min(counts) > 150
    assert max(counts) < 250


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.07, 4), (0.1, 5), (0.4, 20), (1.0, 50)])
def test_safety_mix_adds_refusals_to_the_whole_task(share: float, count: int):
    """No refusal a second time before all of them came once."""
    options = SafetyMix(share=share, safety=SAFETY)
    found = options.build().rows(TASK, REFUSALS, 3)
    assert found[:50] == TASK
    added = found[50:]
    assert len(added) == count == options.rows_trained(50) - 50
    times = [added.count(row) for row in REFUSALS]
    assert sum(times) == count
    assert max(times) - min(times) <= 1


def test_safety_mix_is_a_function_of_the_seed():
    """Refusals that come again do so in another order."""
    twice = SafetyMix(share=0.8, safety=SAFETY).build().rows(TASK, REFUSALS, 3)[50:]
    assert twice[:20] != twice[20:]
    mix = SafetyMix(share=0.2, safety=SAFETY).build().rows
    assert mix(TASK, REFUSALS, 0) == mix(TASK, REFUSALS, 0)
    assert len({tuple(mix(TASK, REFUSALS, seed)) for seed in range(4)}) == 4


def test_the_safety_rows_of_a_step_are_as_many_as_asked_for():
    """SBR's are the same first prompts at every step; the others draw from all there are."""
    asked = (
        SBR(safety=SAFETY, anchors=3),
        SafeGrad(safety=SAFETY, rows_per_step=5),
        Case1(safety=SAFETY, rows_per_step=7),
    )
    found = [method.build().auxiliary for method in asked]
    assert found == [(3, 3, True), (5, None, False), (7, None, False)]


def test_a_convex_form_has_a_weight_from_0_to_1():
    assert Case1(safety=SAFETY, form="convex", lam=1.0).lam == 1
    with pytest.raises(ValueError, match=r"needs lam from 0 to 1, found 1\.01"):
        Case1(safety=SAFETY, form="convex", lam=1.01)
