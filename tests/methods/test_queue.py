"""The queue of negatives against heapq and against a plain list."""

import heapq
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raycib.objectives.queue import NegativeQueue

Push = list[int]
"""The hardness of each row of one optimiser step; small whole numbers, so that many are equal."""


def push(queue: NegativeQueue, step: int, first: int, hardness: Sequence[float]) -> None:
    """Rows that know who they are: row n has example n and vectors (n, -n)."""
    examples = torch.arange(first, first + len(hardness))
    vectors = torch.stack([examples, -examples], dim=1).float()
    queue.push(step, examples, vectors, vectors + 0.5, torch.tensor(hardness).float())


def fill(size: int, keep: str, pushes: list[Push]) -> NegativeQueue:
    queue, first = NegativeQueue(size, 2, keep), 0
    for step, hardness in enumerate(pushes):
        push(queue, step, first, hardness)
        first += len(hardness)
    return queue


def held(queue: NegativeQueue) -> list[int]:
    """Examples in the queue, best slot first."""
    return queue.example[: len(queue)].tolist()


pushes = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), max_size=8)
sizes = st.integers(1, 12)


@given(sizes, pushes)
def test_hardest_keeps_the_top_m_of_all_rows_ever_pushed(size: int, pushes: list[Push]):
    """heapq.nlargest is stable: of equals the one pushed first."""
    everything = [hardness for one in pushes for hardness in one]
    expected = heapq.nlargest(size, range(len(everything)), key=lambda i: everything[i])
    assert held(fill(size, "hardest", pushes)) == expected


@given(sizes, pushes)
def test_recent_keeps_the_last_m_rows_pushed(size: int, pushes: list[Push]):
    total = sum(map(len, pushes))
    assert held(fill(size, "recent", pushes)) == list(range(total))[::-1][:size]


@given(sizes, pushes, st.sampled_from(["hardest", "recent"]))
def test_a_slot_holds_one_row_whole(size: int, pushes: list[Push], keep: str):
    """Whatever was sorted, example, age, hardness and both vectors belong together."""
    queue = fill(size, keep, pushes)
    rows = [(step, hardness) for step, one in enumerate(pushes) for hardness in one]
    for slot, example in enumerate(held(queue)):
        assert (int(queue.pushed[slot]), float(queue.hardness[slot])) == rows[example]
        assert queue.current[slot].tolist() == [example, -example]
        assert queue.reference[slot].tolist() == [example + 0.5, 0.5 - example]
    assert (queue.example[len(queue) :] == -1).all()


@given(sizes, pushes, st.integers(0, 8), st.sampled_from(["hardest", "recent"]))
def test_expired_rows_leave_and_the_others_keep_their_order(
    size: int, pushes: list[Push], before: int, keep: str
):
    queue = fill(size, keep, pushes)
    young = [e for e, age in zip(held(queue), queue.pushed, strict=False) if age >= before]
    queue.expire(before)
    assert held(queue) == young


@given(sizes, pushes, st.sampled_from(["hardest", "recent"]))
def test_by_age_the_held_rows_come_in_the_order_they_were_pushed(
    size: int, pushes: list[Push], keep: str
):
    queue = fill(size, keep, pushes)
    assert queue.example[queue.by_age()].tolist() == sorted(held(queue))


@pytest.mark.parametrize("keep", ["hardest", "recent"])
def test_a_state_dict_holds_all_of_a_queue(keep: str):
    queue = fill(5, keep, [[1, 2, 3], [3, 2, 1]])
    again = NegativeQueue(5, 2, keep)
    again.load_state_dict(queue.state_dict())
    for one in (queue, again):
        push(one, 2, 6, [2, 9, 0])
    assert held(again) == held(queue)
    for name, value in queue.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_the_queue_keeps_copies():
    """A later change of the pushed tensors must not reach into it."""
    queue, rows = NegativeQueue(2, 2), torch.ones(1, 2)
    queue.push(0, torch.tensor([7]), rows, rows, torch.ones(1))
    rows.zero_()
    assert queue.current[0].tolist() == [1.0, 1.0]
