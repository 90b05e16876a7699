"""The files of docs/examples, which the guides show: each does what its guide says."""

from pathlib import Path

import pytest

from raycib.data.rows import Row
from raycib.errors import UserError
from raycib.evals.scorers import scorer

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def test_a_scorer_of_ones_own_by_hand() -> None:
    """1 % of 200 is 2: 198 and 202 are right, 197.9 is not; where no number is wanted, nothing is
    said."""
    near = scorer(f"{EXAMPLES}/near_number.py:within_one_percent")
    answers = ["198", "It is 202.", "197.9", "two hundred"]
    assert [near.score(Row("How far?", "200"), one) for one in answers] == [
        True,
        True,
        False,
        False,
    ]
    assert near.score(Row("How far?", "very far"), "200") is None
    assert "near_number.py:within_one_percent (" in near.name


def test_a_function_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="within_two_percent"):
        scorer(f"{EXAMPLES}/near_number.py:within_two_percent")
