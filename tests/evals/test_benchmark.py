"""Rates and their intervals; harm, refusals and what is neither, each a benchmark."""

from typing import Any, cast

import numpy as np
import pytest
from scipy.stats import binomtest, sem, t

from raycib.data.rows import describe_rows, load_rows, rows_of
from raycib.evals.benchmark import Harm
from raycib.evals.verdict_forms import Verdict
from raycib.evals.verdicts import VerdictCache
from raycib.metrics import METRICS, rate

HARMFUL = [row.prompt for row in load_rows("world:harmful.test")[:4]]
HELPED = "steel and a hammer : forge the bomb at home ."


def benchmark(source: str, verdicts: dict[tuple[str, str], bool | None]) -> Harm:
    rows = describe_rows("harmful", source, 128, 40)
    verdict_cache = {pair: Verdict(harmful, (), "") for pair, harmful in verdicts.items()}
    return Harm(rows, rows_of(rows), cast(VerdictCache, verdict_cache))


def test_the_interval_is_wilsons() -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81/263, 15/148, 0/20, 1/29."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (hits, n), (low, high) in published.items():
        found = METRICS["hrr"].of([True] * hits + [False] * (n - hits))
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    for n in (1, 2, 29, 260):
        for hits in range(n + 1):
            interval = binomtest(hits, n).proportion_ci(method="wilson")
            found = rate(hits, n)
            assert (found.low, found.high) == (interval.low, interval.high), (hits, n)


def test_the_interval_of_scores_that_are_no_shares_is_students() -> None:
    """F1 and the like, against scipy's within 0 and 1; one score alone has none, nor have equal
    ones, of which Student's would have no width."""
    for n in (2, 3, 160):
        scores = np.random.default_rng(n).random(n).tolist()
        found = METRICS["accuracy"].of(scores)
        low, high = t.interval(0.95, n - 1, loc=np.mean(scores), scale=sem(scores))
        ends = (max(low, 0.0), min(high, 1.0))
        assert (found.low, found.high) == pytest.approx(ends, rel=1e-12)
    for n in (1, 2, 30):
        found = METRICS["accuracy"].of([0.1] * n)
        assert (found.value, found.low, found.high) == (pytest.approx(0.1), None, None), n
    found = METRICS["accuracy"].of([0.5, float("nan"), None, 1.0])
    assert (found.value, found.n, found.unread) == (0.75, 2, 2)
    assert METRICS["accuracy"].of([0.5, None]).unread == 1


def test_what_cannot_be_read_is_counted_and_never_safe() -> None:
    """2 of 3 readable are harmful; counting the unreadable as safe would give 2/4. Without a
    readable verdict nothing is claimed."""
    found = METRICS["hrr"].of([True, True, False, None])
    assert (found.value, found.n, found.unread) == (2 / 3, 3, 1)
    nothing = {"value": None, "low": None, "high": None, "n": 0, "unread": 2}
    assert METRICS["hrr"].of([None, None]).model_dump() == nothing
    with pytest.raises(ValueError, match="at least one answer"):
        rate(0, 0)


@pytest.mark.parametrize("own_refusals", [True, False])
def test_an_answer_is_harmful_a_refusal_or_neither(own_refusals: bool, tmp_path: Any) -> None:
    """One of three readable verdicts is harmful, one answer of those is neither, and two of four
    refuse: in the world's words, and in those of any model."""
    source, refused = "world:harmful.test#first-4", "sorry , no"
    if not own_refusals:
        source, refused = str(tmp_path / "harmful.csv"), "I'm sorry, but I can't help with that."
        (tmp_path / "harmful.csv").write_text("prompt\n" + "\n".join(HARMFUL) + "\n")
    answers = [HELPED, refused, "blah blah", refused]
    verdicts = [True, False, False, None]
    pairs = zip(HARMFUL, answers, strict=True)
    of = benchmark(source, dict(zip(pairs, verdicts, strict=True)))
    found = of.values(answers)
    assert {name: (v.value, v.n, v.unread) for name, v in found.items()} == {
        "hrr": (1 / 3, 3, 1),
        "incoherent_rate": (1 / 3, 3, 1),
        "refusal_rate": (2 / 4, 4, 0),
        **({"hrr_true": (1 / 4, 4, 0), "judge_agreement": (1, 3, 1)} if own_refusals else {}),
    }


def test_an_answer_that_is_judged_later_counts_from_then_on() -> None:
    """Scores of answers that models share are kept, and none of an answer without a verdict."""
    rows, verdicts = describe_rows("harmful", "world:harmful.test#first-4", 128, 40), {}
    of = Harm(rows, rows_of(rows), cast(VerdictCache, verdicts))
    answers = [HELPED] * 4
    assert of.values(answers)["hrr"].unread == 4
    verdicts |= {(prompt, HELPED): Verdict(prompt == HARMFUL[0], (), "") for prompt in HARMFUL}
    found = of.values(answers)["hrr"]
    assert (found.value, found.n, found.unread) == (1 / 4, 4, 0)
    assert of.values(answers) == of.values(answers)
