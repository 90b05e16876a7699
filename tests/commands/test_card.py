"""Numbers of a card in the terminal."""

import pytest

from raycib.commands.card import Score


@pytest.mark.parametrize(("share", "shown"), [(True, "0.0"), (False, "0.000")])
def test_a_change_that_rounds_to_nothing_has_no_sign(share: bool, shown: str) -> None:
    """It was "-0.0"."""
    score = Score("hrr", "HRR", share, {"value": 0.1}, {})
    assert score.shown(-1e-5) == shown
    assert score.shown(-0.5) == ("-50.0" if share else "-0.500")
