"""Cohen's kappa with its interval, and the order of rows, against others' and hand computation."""

import math
import random

import pytest

from raycib.report.agreement import Reading, agreement, cohens_kappa, order


def table(both_unsafe: int, only_first: int, only_other: int, both_safe: int) -> list[Reading]:
    """As many conversations, each on a prompt of its own."""
    said = [(True, True)] * both_unsafe + [(True, False)] * only_first
    said += [(False, True)] * only_other + [(False, False)] * both_safe
    return [Reading(k, first, other) for k, (first, other) in enumerate(said)]


def test_a_known_table() -> None:
    """Agreement 35 of 50; chance .5 x .6 + .5 x .4 = .5."""
    assert cohens_kappa(table(20, 5, 10, 15)).value == pytest.approx(0.4, abs=1e-12)


def test_equal_answers_to_one_prompt_do_not_narrow_the_interval() -> None:
    """Every conversation four times on its prompt tells no more than once."""
    once = table(20, 5, 10, 15)
    found, four = cohens_kappa(once), cohens_kappa([one for one in once for _ in range(4)])
    assert (four.value, four.low, four.high) == pytest.approx((found.value, found.low, found.high))
    assert four.n == 4 * found.n


def test_the_interval_covers_the_truth_where_answers_to_a_prompt_are_alike() -> None:
    """65 prompts with 8 answers each, 400 times: one that took answers for independent would cover
    86 % (measured)."""
    chance = random.Random(0)

    def drawn(prompts: int) -> list[Reading]:
        found = []
        for prompt in range(prompts):
            harm, error = chance.betavariate(0.7, 1.2), chance.betavariate(1, 8)
            for _ in range(8):
                first = chance.random() < harm
                found.append(Reading(prompt, first, first != (chance.random() < error)))
        return found

    truth = cohens_kappa(drawn(40_000)).value
    covered = sum(
        found.low <= truth <= found.high for found in (cohens_kappa(drawn(65)) for _ in range(400))
    )
    assert 0.91 <= covered / 400 <= 0.97


def test_what_was_not_read_is_counted_and_in_no_share() -> None:
    readings = [Reading(1, True, None), Reading(2, None, None), Reading(3, None, False)]
    found = agreement([*readings, *table(3, 1, 0, 4)])
    assert (found.n, found.first_unread, found.other_unread) == (8, 2, 2)
    assert (found.both_unsafe, found.only_first_unsafe, found.only_other_unsafe) == (3, 1, 0)
    assert found.agreement == 7 / 8


def test_nothing_is_claimed_where_nothing_can_be_known() -> None:
    """No conversation; one word for all; full agreement, which has no variance."""
    for readings in ([], table(0, 0, 0, 9), table(9, 0, 0, 0)):
        assert agreement(readings).kappa is None
    full = agreement(table(4, 0, 0, 5))
    assert (full.kappa, full.kappa_low, full.kappa_high) == (1.0, None, None)


def test_two_prompts_have_the_widest_interval_and_one_has_none() -> None:
    """Student's quantile of one degree of freedom is 12.7."""
    said = [(True, True), (True, False), (False, False), (False, False)]
    two, one = ([Reading(k // size, *pair) for k, pair in enumerate(said)] for size in (2, 4))
    found = cohens_kappa(two)
    assert (found.value, found.low, found.high) == (pytest.approx(0.5), -1, 1)
    assert cohens_kappa(one).value == pytest.approx(0.5) and math.isnan(cohens_kappa(one).low)


def test_the_order_of_rows() -> None:
    """Of 4 rows 6 pairs; one is swapped: (5 - 1) / 6. Rounding makes no order; ties are no swap."""
    found = order([0.1, 0.2, 0.3, 0.4], [0.1, 0.3, 0.2, 0.9])
    assert (found.rows, found.swapped, found.pairs) == (4, 1, 6)
    assert found.tau == pytest.approx(4 / 6)
    assert order([0.1 + 0.2, 0.3], [0.2, 0.1]).tau is None, "0.30000000000000004 is 0.3"
    assert order([0.1, 0.2, math.nan], [0.3, 0.4, 0.5]).rows == 2
    assert order([0.1], [0.1]).tau is None
    assert order([0.1, 0.2], [0.2, 0.2]).swapped == 0
