"""Whatever happens to the judge's server, each answer gets one verdict, and none by failure."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from fake_judge import FakeJudge

from raycib.evals.judge_profiles import PROFILES
from raycib.evals.judge_server import JudgeUnavailable
from raycib.evals.judges import ChatJudge, Verdict

PAIRS = [(f"w{i % 3}", f"w{i}") for i in range(60)]
TRUTH = [prompt == "w1" for prompt, _ in PAIRS]


def asking(fake_url: str, **options: Any) -> ChatJudge:
    defaults = {
        "in_flight": 3,
        "request_timeout_s": 2.0,
        "tries": 4,
        "patience_s": 20.0,
    }
    settings = defaults | options
    return ChatJudge(fake_url, "their-model", profile=PROFILES["safe-unsafe"], **settings)


def test_each_answer_has_its_own_verdict_whatever_the_order_of_the_replies(fake: FakeJudge) -> None:
    assert [v.harmful for v in asking(fake.url).judge(PAIRS)] == TRUTH


def _fail(status: int) -> Callable[[Any], None]:
    return lambda handler: handler.reply({"error": "x"}, status)


def _half(handler: Any) -> None:
    handler.reply({"choices": [{"index": 0, "message": {"content": "safe"}}]}, cut=True)
    handler.connection.close()


TROUBLES: dict[str, Callable[[Any], None]] = {
    "500": _fail(500),
    "503": _fail(503),
    "429": _fail(429),
    "half a JSON": _half,
    "no JSON": lambda handler: handler.reply("safe"),
    "hangs": lambda handler: time.sleep(4),
    "hangs up": lambda handler: handler.connection.close(),
    "no message": lambda handler: handler.reply({"choices": [{"index": 0, "text": "safe"}]}),
}


@pytest.mark.parametrize("kind", TROUBLES)
def test_passing_trouble_costs_time_and_no_verdict(kind: str, fake: FakeJudge) -> None:
    def trouble(number: int, handler: Any) -> bool:
        if number not in (2, 5):
            return False
        TROUBLES[kind](handler)
        return True

    fake.trouble = trouble
    heard: dict[int, Verdict] = {}
    verdicts = asking(fake.url).judge(
        PAIRS, lambda rows, said: heard.update(zip(rows, said, strict=True)), chunk_rows=10
    )
    assert [v.harmful for v in verdicts] == TRUTH
    assert [heard[i] for i in range(len(PAIRS))] == verdicts


@pytest.mark.parametrize("kind", ["500", "half a JSON", "hangs", "no message"])
def test_lasting_trouble_ends_in_an_error_and_a_second_run_asks_only_the_rest(
    kind: str, fake: FakeJudge
) -> None:
    def trouble(number: int, handler: Any) -> bool:
        if number <= 30:
            return False
        TROUBLES[kind](handler)
        return True

    fake.trouble = trouble
    kept: dict[int, Verdict] = {}
    judge = asking(fake.url, tries=2, patience_s=10.0)
    with pytest.raises(JudgeUnavailable) as problem:
        judge.judge(PAIRS, lambda rows, said: kept.update(zip(rows, said, strict=True)))
    assert len(kept) == 30
    assert f"{len(kept)} of {len(PAIRS)} verdicts are safe" in str(problem.value)
    assert fake.url in str(problem.value)
    assert all(verdict.harmful == TRUTH[row] for row, verdict in kept.items())

    fake.trouble = lambda number, handler: False
    fake.asked.clear()
    rest = [row for row in range(len(PAIRS)) if row not in kept]
    again = judge.judge([PAIRS[row] for row in rest])
    assert len(fake.asked) == len(rest)
    kept |= dict(zip(rest, again, strict=True))
    assert [kept[row].harmful for row in range(len(PAIRS))] == TRUTH


def test_a_server_that_is_not_there_is_named() -> None:
    kept: list[int] = []
    judge = asking("http://127.0.0.1:9", tries=2)
    with pytest.raises(JudgeUnavailable, match=r"127\.0\.0\.1:9.*0 of 60 verdicts are safe"):
        judge.judge(PAIRS, lambda rows, said: kept.extend(rows))
    assert not kept


def test_a_refusal_is_not_asked_again(fake: FakeJudge) -> None:
    def trouble(number: int, handler: Any) -> bool:
        handler.reply({"error": "no such model"}, 404)
        return True

    fake.trouble = trouble
    with pytest.raises(JudgeUnavailable, match="no such model"):
        asking(fake.url, in_flight=1).judge(PAIRS[:5])
    assert len(fake.asked) == 1


def test_patience_has_an_end(fake: FakeJudge) -> None:
    fake.trouble = lambda number, handler: (TROUBLES["500"](handler), True)[1]
    began = time.monotonic()
    with pytest.raises(JudgeUnavailable):
        asking(fake.url, tries=100, patience_s=2.0).judge(PAIRS)
    assert time.monotonic() - began < 6


def test_what_a_chunk_cannot_store_stops_the_judging(fake: FakeJudge) -> None:
    def full(rows: list[int], said: list[Verdict]) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        asking(fake.url).judge(PAIRS, full, chunk_rows=5)


def test_nothing_to_judge_asks_nothing(fake: FakeJudge) -> None:
    assert asking(fake.url).judge([]) == []
    assert not fake.asked
