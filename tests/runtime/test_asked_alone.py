"""Answers that are asked for again, each alone: which they are, and what is told of them."""

from pathlib import Path
from random import Random

import pytest
import synthetic_sweep
from synthetic_sweep import REFUSAL, Rule, question, sweep_in

from raycib.config import RowsSpec
from raycib.evals.alone import ask_alone, picked
from raycib.evals.engine import Answer, GenerationRequest
from raycib.metrics import rate
from raycib.report.frame import to_frame
from raycib.report.measured import measured
from raycib.report.statistics import paired_interval
from raycib.report.warnings import warnings
from raycib.runtime.alone import asked_alone, pairs_of, picks_of
from raycib.runtime.summary import summarise
from raycib.runtime.sweep import Sweep
from raycib.world.language import parse

ROWS = RowsSpec.model_construct(source="x", num_rows=40)


def models(count: int) -> dict[str, RowsSpec]:
    return {f"{Random(number).getrandbits(64):016x}": ROWS for number in range(count)}


def test_one_in_a_hundred_is_asked_again_and_no_more_than_told():
    assert len(picked(models(1), 32)) == 1
    assert len(picked(models(25), 32)) == 10
    assert len(picked(models(200), 32)) == 32
    assert picked(models(200), 0) == [] == picked({}, 32)


def test_who_is_asked_again_is_nobodys_choice():
    """The same whatever the order; many models' answers are of many models, and other models leave
    most as they were."""
    every = models(200)
    found = picked(every, 32)
    assert picked(dict(reversed(every.items())), 32) == found
    assert len({one.model_id for one in found}) == 32
    assert len(set(picked(models(20), 32))) == 8
    more = picked(models(220), 32)
    assert len(set(found) & set(more)) >= 25


class Alone:
    """An engine that says otherwise alone what it is told to."""

    name = "transformers"

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def alone(self, requests: list[GenerationRequest]) -> list[Answer]:
        return [
            Answer(one.id, text, (1,), "stop")
            for one, text in zip(requests, self.texts, strict=True)
        ]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    asked, options = question(4, (0, 1))
    synthetic_sweep.fill(tmp_path, asked, options)
    return sweep_in(tmp_path, asked, options)


def again(sweep: Sweep, changed: dict[int, str]) -> None:
    """Asked alone, all is as before but some answers."""
    from raycib.models import load_tokenizer

    picks = picks_of(sweep)
    before = [
        said.texts[one.place]
        for one in picks
        if (said := sweep.answers.read(one.model_id, one.rows, "transformers"))
    ]
    texts = [changed.get(place, text) for place, text in enumerate(before)]
    tokenizer = load_tokenizer(sweep.setup.model.source, "own")
    folders = dict.fromkeys(one.model_id for one in picks)
    ask_alone(sweep.answers, Alone(texts), tokenizer, folders, picks)  # type: ignore[arg-type]


def test_nothing_is_told_where_nobody_asked(sweep: Sweep):
    assert asked_alone(sweep) is None and pairs_of(sweep) == []


def test_answers_that_differ_are_counted_with_what_they_change(sweep: Sweep):
    """Nine models of 260 prompts: 24 are asked again. Alone one refusal is a harmful answer and one
    says something else: 2 differ, and the rate is higher by 1 of 24."""
    picks = picks_of(sweep)
    assert len(picks) == 24 and len({one.model_id for one in picks}) == 9
    refused = [
        number
        for number, one in enumerate(picks)
        if (said := sweep.answers.read(one.model_id, one.rows, "transformers"))
        and said.texts[one.place] == REFUSAL
    ]
    request = parse(sweep.answers.rows(picks[refused[0]].rows)[picks[refused[0]].place].prompt)
    assert request
    again(sweep, {refused[0]: request.answer("cont"), refused[1]: "yes ."})
    assert len(pairs_of(sweep)) == 2
    sweep.verdict_cache.ask(Rule(), pairs_of(sweep))  # type: ignore[arg-type]
    found = asked_alone(sweep)
    assert found and found.differ == rate(2, 24)
    by_hand = paired_interval([1.0] + [0.0] * 23)
    assert found.hrr_change and (found.hrr_change.value, found.hrr_change.n) == (
        pytest.approx(1 / 24),
        24,
    )
    assert (found.hrr_change.low, found.hrr_change.high) == pytest.approx(
        (by_hand.low, by_hand.high)
    )
    results = summarise(sweep, ("grid", ""), sweep.plan(1), {}, {}, {"total": 0})
    assert results.asked_alone == found
    [line] = [one for one in warnings(results, to_frame(results)) if "asked for again" in one]
    assert line.startswith("2 of 24 answers that were asked for again, each alone, differ (8.3 [")


def test_equal_answers_are_no_warning(sweep: Sweep):
    again(sweep, {})
    results = summarise(sweep, ("grid", ""), sweep.plan(1), {}, {}, {"total": 0})
    assert results.asked_alone and results.asked_alone.differ == rate(0, 24)
    told = {part.title: part.items for part in measured(results)}
    assert told["Answers asked for again, each alone"] == [
        ("differ", "0.0 % [0.0, 13.8], n = 24"),
        ("hrr change", "0.0 points [-7.5, 7.5], n = 24"),
    ]
    assert not [one for one in warnings(results, to_frame(results)) if "alone" in one]
