"""The judge that is a rule: what it says, where it is kept, and what it leaves untold."""

from pathlib import Path

import pytest

from raycib import world
from raycib.data.rows import Row, describe_rows
from raycib.errors import UserError
from raycib.evals import refusals
from raycib.evals.benchmark import Harm
from raycib.evals.refusal_judge import RefusalJudge, describe_refusal_judge
from raycib.evals.verdicts import CHUNK, VerdictCache
from raycib.report.judge_warnings import judge_warnings
from raycib.runtime.judge import account, check_judge, describe_judge, unserved_judge
from raycib.store import Store

PAIRS = [
    ("q", "I'm sorry, but I can't help with that."),
    ("q", "Sure! First, mix the powder with"),
    ("q", "blue blue blue blue"),
    ("q", ""),
]


def test_what_does_not_open_as_a_refusal_counts_and_is_stored(tmp_path: Path) -> None:
    spec = describe_judge("refusal-rule", None)
    check_judge(spec, None)
    cache = VerdictCache(Store(tmp_path), spec.key, spec.source)
    assert cache.ask(unserved_judge(spec, None), PAIRS) == len(PAIRS)
    again = VerdictCache(Store(tmp_path), spec.key, spec.source)
    assert [again.get(pair).harmful for pair in PAIRS] == [False, True, True, True]  # type: ignore[union-attr]
    assert again.ask(unserved_judge(spec, None), PAIRS) == 0, "nothing is judged twice"
    told = account(spec, again, PAIRS, own_world=False)
    assert told.unread == {} and not told.out_of_its_world
    assert any("No judge read the answers" in line for line in judge_warnings(told))


def test_who_waits_hears_of_each_chunk_that_is_stored(tmp_path: Path) -> None:
    cache = VerdictCache(Store(tmp_path), describe_refusal_judge().key)
    heard: list[tuple[int, int, int]] = []

    def told(read: int, total: int) -> None:
        heard.append((read, total, len(VerdictCache(cache.store, cache.judge_key)._known)))

    cache.ask(RefusalJudge(), [("a prompt", f"answer {n}") for n in range(CHUNK + 44)], told)
    assert heard == [(0, 300, 0), (256, 300, 256), (300, 300, 300)]


def test_verdicts_come_in_lots_that_cover_all() -> None:
    seen: list[int] = []
    RefusalJudge().judge(PAIRS, lambda rows, said: seen.extend(rows), chunk_rows=3)
    assert seen == [0, 1, 2, 3]


def test_the_rule_does_not_tell_babble_from_harm(tmp_path: Path) -> None:
    """Harmful and incoherent shares are one and unknown, not 75 % and 0."""
    spec = describe_judge("refusal-rule", None)
    file = tmp_path / "asked.jsonl"
    file.write_text('{"prompt": "q"}\n')
    asked = describe_rows("harmful", str(file), 64, 8)
    cache = VerdictCache(Store(tmp_path), spec.key, spec.source)
    cache.ask(RefusalJudge(), PAIRS)
    rows, answers = [Row(prompt, "") for prompt, _ in PAIRS], [answer for _, answer in PAIRS]
    value = Harm(asked, rows, cache).values(answers)
    assert value["hrr"].value == 0.75 and value["refusal_rate"].value == 0.25
    assert value["incoherent_rate"].value is None


def test_on_the_worlds_own_answers_it_agrees_with_the_worlds_rule() -> None:
    answers = [row["response"] for row in world.rows("align.train")]
    said = RefusalJudge().judge([("", answer) for answer in answers])
    assert [one.harmful for one in said] == [not world.is_refusal(answer) for answer in answers]


def test_another_rule_is_another_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = describe_judge("refusal-rule", None).key
    changed = tmp_path / "refusals.py"
    changed.write_text(Path(refusals.__file__).read_text() + "# more\n")
    monkeypatch.setattr(refusals, "__file__", str(changed))
    assert describe_judge("refusal-rule", None).key != before


def test_it_is_asked_nothing() -> None:
    with pytest.raises(UserError, match="leave --judge-profile out"):
        describe_judge("refusal-rule", None, "instruct")
