"""Where a rule stands in for a judge, no table, figure or sentence speaks of harmful responses."""

import re
from functools import partial

import pytest
from summaries import reported, samples
from test_not_measured import KINDS, everything_said

from raycib.report.not_refused import in_words
from raycib.report.reworded import reworded

OF_A_JUDGE = re.compile(r"HRR|[Hh]armful response|[Hh]armful answers")


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_is_called_what_it_is(kind: str) -> None:
    summary = KINDS[kind]()
    given = samples(summary, 6)
    usual = reported(summary, given)
    report = reworded(usual, in_words)
    texts = everything_said(summary, given, partial(reworded, words=in_words))
    told = {where: text for where, text in texts.items() if not where.endswith(".csv")}
    assert {
        where: found[0] for where, text in told.items() if (found := OF_A_JUDGE.search(text))
    } == {}
    assert "Not refused" in told["page"] and "Not refused" in told["terminal"]
    assert report.main.rows is usual.main.rows, "the numbers are the same"


def test_a_sentence_stays_a_sentence() -> None:
    assert in_words("Plain LoRA brings harmful responses from 3 % to 9 %") == (
        "Plain LoRA brings answers not refused from 3 % to 9 %"
    )
    assert in_words("two harmful response rates, the harmful response rate, HRR") == (
        "two shares not refused, the share not refused, Not refused"
    )
