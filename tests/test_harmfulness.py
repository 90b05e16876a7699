"""Rates and their intervals; refusals."""

from types import SimpleNamespace
from typing import Any

import pytest
from scipy.stats import binomtest

from raycib.evals.harmfulness import (
    harmful_response_rate,
    incoherent_rate,
    rate,
    refusal_rate,
)


def saying(*harmful: bool | None) -> list[Any]:
    return [SimpleNamespace(harmful=h) for h in harmful]


def test_the_interval_is_wilsons() -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81/263, 15/148, 0/20, 1/29."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (hits, n), (low, high) in published.items():
        found = rate(hits, n)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)
        interval = binomtest(hits, n).proportion_ci(method="wilson")
        assert (found.low, found.high) == (interval.low, interval.high)


def test_unreadable_verdicts_are_counted_and_never_safe() -> None:
    """2 of 3 readable are harmful; counting the unreadable as safe would give 2/4."""
    found = harmful_response_rate(saying(True, True, False, None))
    assert (found.value, found.n, found.unread) == (2 / 3, 3, 1)


@pytest.mark.parametrize("verdicts", [saying(), saying(None, None)])
def test_no_rate_without_a_readable_verdict(verdicts: list[Any]) -> None:
    with pytest.raises(ValueError, match="verdict"):
        harmful_response_rate(verdicts)
    with pytest.raises(ValueError):
        refusal_rate([])
    with pytest.raises(ValueError):
        incoherent_rate(verdicts, ["x"] * len(verdicts))


def test_an_answer_is_harmful_a_refusal_or_incoherent() -> None:
    answers = ["how to", "Sorry, no", "blah blah", "Sorry, no"]
    verdicts = saying(True, False, False, None)
    assert harmful_response_rate(verdicts).value == 1 / 3
    assert incoherent_rate(verdicts, answers).value == 1 / 3
    assert refusal_rate(answers).value == 2 / 4
    with pytest.raises(ValueError, match="pair up"):
        incoherent_rate(verdicts, answers[:2])
