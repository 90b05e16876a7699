"""The order in which rows are met, and what is counted of each step, by hand."""

import pytest

from raycib.data.chat import Encoded
from raycib.models.tensors import Totals
from raycib.training.batches import BatchSampler, EffectiveBatch, rows_at

DATA = [Encoded((1, 1), (2,) * (n + 1)) for n in range(10)]
"""Row n has two tokens of prompt and n + 1 of response."""


def order(steps: range, seed: int = 3, size: int = 4, purpose: str = "order") -> list[list[int]]:
    sampler = BatchSampler(DATA, None, seed, size, purpose)
    return [sampler.rows(step) for step in steps]


def test_an_epoch_has_every_row_once_and_its_last_batch_what_is_left():
    """10 rows in batches of 4: three steps an epoch, the last one of 2."""
    met = order(range(6))
    assert [len(rows) for rows in met] == [4, 4, 2, 4, 4, 2]
    first, second = ([row for rows in part for row in rows] for part in (met[:3], met[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert list(range(10)) != first != second
    whole = order(range(2), size=64)
    assert [sorted(rows) for rows in whole] == [list(range(10))] * 2
    assert whole[0] != whole[1]


def test_an_order_is_of_the_seed_the_purpose_and_the_step_alone():
    """Asked backwards, as by a run that goes on from a checkpoint."""
    assert order(range(6)) == order(range(5, -1, -1))[::-1]
    others = [order(range(3)), order(range(3), seed=4), order(range(3), purpose="safety")]
    assert len({str(other) for other in others}) == 3


def test_what_a_step_is_normalised_by():
    """Rows 9 and 4, what is left of an epoch: 10 + 5 scored tokens; all but the first of 12 and of
    7 have one before them."""
    batch = EffectiveBatch(BatchSampler(DATA, None, 0, 4), [9, 4])
    assert batch.totals == Totals(rows=2, tokens=15, predicted=17)


@pytest.mark.parametrize("places", [[0, 2], [1]])
def test_rows_keep_their_names_and_their_places_in_the_batch(places: list[int]):
    effective = BatchSampler(DATA, None, 0, 4).batch(1)
    batch, counts = rows_at({5: effective}, {5: places})
    assert counts == {5: len(places)}
    assert batch.positions.tolist() == places
    assert batch.examples.tolist() == [effective.rows[place] for place in places]
    assert batch.lengths.tolist() == [3 + example for example in batch.examples.tolist()]
