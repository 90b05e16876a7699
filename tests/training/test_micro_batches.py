"""How rows are dealt: nobody is lost, nothing is too large, and little or none is padding."""

import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycib.data.rows import read_rows
from raycib.training.micro_batches import Lengths, MicroBatch, computed, count, deal, expect

SHARED = Path(__file__).parents[3] / "shared" / "data"
LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=24)


def test_rows_of_about_one_length_come_together():
    """600 + 600 and 100 + 100 + 100: 1500 tokens, and no padding; as drawn there are 600 x 5."""
    lengths = {0: [100, 600, 100, 600, 100]}
    assert deal(lengths, {}, 1, 16, 4000) == [
        [MicroBatch({0: [1, 3]}, {}), MicroBatch({0: [0, 2, 4]}, {})]
    ]
    assert count(deal(lengths, {}, 1, 16, 4000), lengths, {}) == (1500, 1500, 1200, 2)
    assert count(deal(lengths, {}, 1, 16), lengths, {}) == (1500, 3000, 3000, 1)


def test_a_pass_must_be_worth_its_launches():
    """Ten tokens of padding are less than what another pass costs."""
    assert deal({0: [100, 90]}, {}, 1, 16, 1000) == [[MicroBatch({0: [0, 1]}, {})]]


def test_rows_end_to_end_fill_their_passes_a_slot_after_the_other():
    """Of 1,000 tokens: 600 + 400 whatever their lengths, and slot 1 begins where slot 0 ends."""
    lengths = {0: [400, 600, 300], 1: [500, 300, 200, 100]}
    (alone,) = deal(lengths, {}, 1, 16, 1000, packed=True)
    assert [micro.task for micro in alone] == [{0: [0, 1]}, {0: [2], 1: [0, 2]}, {1: [1, 3]}]
    assert count([alone], lengths, {}, packed=True) == (2400, 2400, 1000, 3)


@given(st.lists(LENGTHS, min_size=1, max_size=4), st.sampled_from([300, 1000]))
def test_rows_end_to_end_leave_little_room(rows: list[Lengths], tokens: int):
    """Two neighbours are more than one pass would hold; a slot is in two passes with others at
    most, its first and its last."""
    task = dict(enumerate(rows))
    (alone,) = deal(task, {}, 1, 1, tokens, packed=True)
    sizes = [computed(micro, task, {}, packed=True).total() for micro in alone]
    assert all(a + b > tokens for a, b in pairwise(sizes))
    for slot in task:
        assert sum(slot in micro.task and len(micro.task) > 1 for micro in alone) <= 2


def test_safety_rows_come_in_few_passes():
    """Eight alike are one pass beside the first micro-batch, not one in each of three."""
    task = {0: [300, 300, 200, 200, 100, 100], 1: [300, 200, 100]}
    (alone,) = deal(task, {0: [50] * 8, 1: [60] * 8}, 1, 1, 1000)
    assert [micro.safety for micro in alone] == [{0: [*range(8)], 1: [*range(8)]}, {}, {}]
    (tight,) = deal(task, {0: [50] * 8}, 1, 1, 200)
    assert [micro.safety.get(0, []) for micro in tight if 0 in micro.task][:2] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
    ]
    alike = {0: [200, 200], 1: [200, 200]}
    (shared,) = deal(alike, {0: [50] * 8, 1: [50] * 8}, 1, 1, 400)
    assert [sum(map(len, micro.safety.values())) for micro in shared] == [8, 8], "400 together"
    assert count([alone], task, {0: [50] * 8, 1: [60] * 8}).useful == 1800 + 880


def test_what_an_epoch_is_expected_to_take_by_hand():
    """Rows of 10 to 50 tokens in batches of 2, 2 and 1. Alone nothing is padding. Two slots have
    orders of their own, so that rows of unequal lengths share a pass; end to end nothing is."""
    lengths = [10, 20, 30, 40, 50]
    assert expect(lengths, 2, 1, 1, 1, None) == (150, 150, 50, 5)
    two = expect(lengths, 2, 2, 1, 1, None)
    assert (two.useful, two.micro_batches) == (300, 5)
    assert 300 < two.computed <= 2 * 5 * 50
    assert two.largest == 100, "two rows as wide as the longest, in some pass"
    packed = expect(lengths, 2, 2, 1, 1, 1000, packed=True)
    assert (packed.useful, packed.computed, packed.micro_batches) == (300, 300, 3)


def test_as_drawn_rows_keep_their_order_whatever_their_lengths():
    (alone,) = deal({0: [9, 1, 5, 7, 3]}, {0: [4, 2]}, 1, 2)
    assert alone == [({0: [0, 1]}, {0: [0]}), ({0: [2, 3]}, {0: [1]}), ({0: [4]}, {})]
    assert deal({0: [9, 1, 5]}, {}, 2, 16) == [[({0: [0, 2]}, {})], [({0: [1]}, {})]]


@given(
    st.dictionaries(st.integers(0, 5), LENGTHS, min_size=1, max_size=4),
    LENGTHS,
    st.integers(1, 3),
    st.sampled_from([None, 1, 200, 1000, 10**6]),
    st.booleans(),
)
def test_every_row_is_dealt_once_to_its_own_slot(
    task: dict[int, Lengths], refusals: Lengths, workers: int, tokens: int | None, packed: bool
):
    safety = {next(iter(task)): refusals}
    dealt = deal(task, safety, workers, 3, tokens, packed)
    assert len(dealt) == workers
    micros = [micro for own in dealt for micro in own]
    for kind, lengths in (("task", task), ("safety", safety)):
        for slot, one in lengths.items():
            parts = [getattr(micro, kind).get(slot, []) for micro in micros]
            assert sorted(place for part in parts for place in part) == list(range(len(one)))
            assert all(part == sorted(part) for part in parts)
    assert all(micro.safety.keys() <= micro.task.keys() for micro in micros), "beside its own rows"
    longest = max(length for lengths in task.values() for length in lengths)
    if tokens is not None:
        found = count(deal(task, {}, workers, 3, tokens, packed), task, {}, packed)
        assert found.largest <= max(tokens, longest)
        assert not packed or found.computed == found.useful


def exhaustive(lengths: list[int], tokens: int) -> int:
    """The least that any cut of the sorted rows costs, with 48 tokens a pass; tried one by one."""
    rows = sorted(lengths, reverse=True)
    best = 10**9
    for cuts in range(2 ** (len(rows) - 1)):
        ends = [n + 1 for n in range(len(rows) - 1) if cuts >> n & 1] + [len(rows)]
        starts = [0, *ends[:-1]]
        parts = [rows[a:b] for a, b in zip(starts, ends, strict=True)]
        if all(len(part) * part[0] <= tokens or len(part) == 1 for part in parts):
            best = min(best, sum(len(part) * part[0] + 48 for part in parts))
    return best


@given(st.lists(st.integers(1, 300), min_size=1, max_size=9), st.sampled_from([300, 700, 5000]))
def test_no_other_cut_of_sorted_rows_costs_less(lengths: list[int], tokens: int):
    found = count(deal({0: lengths}, {}, 1, 1, tokens), {0: lengths}, {})
    assert found.computed + 48 * found.micro_batches == exhaustive(lengths, tokens)


def test_workers_get_about_the_same():
    draw = random.Random(0)
    task = {slot: [draw.randint(20, 1000) for _ in range(64)] for slot in range(4)}
    dealt = deal(task, {}, 4, 1, 16384)
    each = [sum(computed(micro, task, {}).total() for micro in own) for own in dealt]
    assert max(each) - min(each) <= 1000, "no more than the longest row, of 33,000"


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
@pytest.mark.parametrize(
    "file", ["dolly/dolly_387.jsonl", "gsm8k/test.jsonl", "alpaca/alpaca_en_demo.json"]
)
@pytest.mark.parametrize(("batch", "slots"), [(64, 1), (64, 4), (16, 4)])
def test_real_rows_are_padded_by_less_than_a_twentieth(file: str, batch: int, slots: int):
    """By words, of which a token is some three quarters; `tests/bench` counts tokens."""
    rows = read_rows(str(SHARED / file)).rows
    words = [len(f"{row.prompt} {row.response}".split()) for row in rows]
    lengths = [20 + count * 4 // 3 for count in words if count <= 750]
    assert expect(lengths, batch, slots, 1, 8, 16384).share > 0.95
    assert expect(lengths, batch, slots, 1, 8, 16384, packed=True).share == 1
    assert expect(lengths, batch, slots, 1, 8, None).share < 0.72
