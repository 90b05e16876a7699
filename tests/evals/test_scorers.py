"""Answers are scored by a rule that fits their task, or not at all: hand-derived verdicts."""

import json
import re
from fractions import Fraction
from pathlib import Path

import pytest
from scored import accuracy, besides, is_right, spec_of

from raycib.config import EvalSpec
from raycib.data.rows import Row, describe_rows, load_rows
from raycib.errors import UserError
from raycib.evals.scorers import NONE, fitting, scorer
from raycib.evals.scorers.numbers import gold_number, said_number
from raycib.evals.scorers.options import said_choice
from raycib.runtime.scoring import scored, scorer_name


def chosen_scorer(rows: list[Row]) -> str:
    return fitting(rows).name


@pytest.mark.parametrize(
    ("response", "number"),
    [
        ("3 * 14 = 42\n#### 42", 42),
        ("#### 1,080\n", 1080),
        ("so\n#### -2.50", Fraction(-5, 2)),
        ("#### $18", 18),
        ("#### 1/2", Fraction(1, 2)),
        ("#### 7\nfirst\n#### 8", 8),
        ("42", 42),
        ("# Tea\n\n#### 1. Boil water\nUse a kettle.", None),
        ("# Tea\n\n#### 1. Boil water", None),
        ("#### 42\nI hope this helps.", None),
        ("it is 42", None),
        ("Boil it for\n5", None),
        ("", None),
    ],
)
def test_a_gold_number_is_what_the_last_line_says_alone(
    response: str, number: Fraction | int | None
) -> None:
    assert gold_number(response) == number


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("3 * 14 = 42", 42),
        ("#### 42 because 6 x 7", 42),
        ("#### 1\nno:\n#### 2", 2),
        ("#### 1. Boil\n#### 2. Pour\nThat takes 5 minutes.", 5),
        ("it costs $1,000.00.", 1000),
        ("between 5-7", 7),
        ("x = -7", -7),
        ("x = \u2212$7.50", Fraction(-15, 2)),
        ("x = $-3", -3),
        ("grew by 50%", 50),
        ("\\boxed{\\frac{3}{4}}", Fraction(3, 4)),
        ("about 3 1/2 cups", Fraction(7, 2)),
        (".5", Fraction(1, 2)),
        ("1/0", 0),
        ("3, 4", 4),
        ("1,2345", 2345),
        ("none", None),
        ("9" * 10_000, None),
    ],
)
def test_a_said_number_is_the_marked_one_or_the_last(
    answer: str, number: Fraction | int | None
) -> None:
    assert said_number(answer) == number


@pytest.mark.parametrize("answer", ["1000", "1,000", "1000.0", "$1,000.", "1000 %", "#### 1000.00"])
def test_one_number_is_right_in_every_spelling(answer: str) -> None:
    assert is_right("final-number", Row("how many?", "#### 1000"), answer)
    assert not is_right("final-number", Row("how many?", "#### 1001"), answer)
    assert not is_right("final-number", Row("how many?", "several"), "several")


def test_a_markdown_heading_makes_no_sum_of_a_guide() -> None:
    guide = Row("Write a guide", "# Tea\n\n#### 1. Boil water\nUse a kettle." + " Wait." * 50)
    assert chosen_scorer([guide]) == "none"
    assert NONE.score(guide, "I have 1 cat") is None


DRUG = "Which one thins blood?\nA. insulin\nB. aspirin\nC. aspirin and heparin\nD. zinc"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b.", "B"),
        ("(B) aspirin", "B"),
        ("**B**", "B"),
        ("Aspirin.", "B"),
        ("The answer is B", "B"),
        ("I think the correct option is (D).", "D"),
        ("I: the answer is B", "B"),
        ("The answer is A? No, the answer is B.", "B"),
        ("a zincate", None),
        ("A doctor would give aspirin", "B"),
        ("aspirin and heparin together", "C"),
        ("insulin or zinc", None),
        ("nobody knows", None),
        ("", None),
    ],
)
def test_a_choice_is_read_as_letter_or_text(answer: str, letter: str | None) -> None:
    assert said_choice(DRUG, answer) == letter


@pytest.mark.parametrize("response", ["aspirin", "B", "B.", "(b)", "B. aspirin"])
def test_options_are_right_by_letter_and_by_text(response: str) -> None:
    row = Row(DRUG, response)
    assert chosen_scorer([row]) == "multiple-choice"
    assert is_right("multiple-choice", row, "Aspirin")
    assert is_right("multiple-choice", row, "The answer is B.")
    assert not is_right("multiple-choice", row, "A")
    assert not is_right("multiple-choice", row, "I do not know.")


def test_letters_alone_and_options_on_one_line_are_choices_too() -> None:
    inline = Row("Vitamin A. is one? A) yes B) no C) who knows", "B")
    assert said_choice(inline.prompt, "no") == "B"
    assert chosen_scorer([inline, Row("pick a letter", "C")]) == "multiple-choice"
    assert is_right("multiple-choice", Row("pick a letter", "C"), "(C), surely")
    assert not is_right("multiple-choice", Row("pick a letter", "A"), "The")


def test_the_options_are_the_last_list_whose_letters_follow_one_another() -> None:
    shown = "As in\nA. red\nB. blue\nchoose:\nA. blue\nB. red\nD. Marr asked this."
    assert said_choice(shown, "red") == "B" and said_choice(shown, "(A)") == "A"
    assert said_choice(shown, "D") is None, "who asked is no option"
    assert said_choice("A. Smith says: pick a letter", "C") == "C", "one is no list"


def test_options_on_lines_may_hold_letters_of_their_own() -> None:
    row = Row("Which?\nA. Hepatitis B: acute\nB. Lack of vitamin A. and C.\nC. none", "none")
    assert said_choice(row.prompt, "Hepatitis B: acute") == "A"
    assert chosen_scorer([row]) == "multiple-choice"


def test_medmcqas_options_are_choices(tmp_path: Path) -> None:
    entry = {"question": "which?", "opa": "insulin", "opb": "aspirin", "opc": "zinc", "opd": "tea"}
    (tmp_path / "med.jsonl").write_text(
        "".join(json.dumps(entry | {"cop": right}) + "\n" for right in (0, 1, 3))
    )
    rows = load_rows(str(tmp_path / "med.jsonl"))
    assert chosen_scorer(rows) == "multiple-choice"
    for row, letter, other in zip(rows, "ABD", "BAC", strict=True):
        assert is_right("multiple-choice", row, letter)
        assert is_right("multiple-choice", row, row.response)
        assert not is_right("multiple-choice", row, other)


@pytest.mark.parametrize(
    ("responses", "scorer"),
    [
        (["#### 1", "so\n#### 2"], "final-number"),
        (["1", "2,000"], "final-number"),
        (["#### 1", "a word"], "exact-match"),
        (["Paris", "in 1999", "the cat"], "exact-match"),
        (["word"] * 19 + ["word " * 40], "exact-match"),
        (["word"] * 19 + ["word " * 51], "none"),
        (["word " * 11], "none"),
        (["one\ntwo"], "none"),
        ([""], "none"),
    ],
)
def test_the_rule_is_chosen_from_all_rows(responses: list[str], scorer: str) -> None:
    assert chosen_scorer([Row("how?", response) for response in responses]) == scorer


def test_what_no_rule_fits_is_not_measured_and_a_named_rule_is_taken() -> None:
    rows = [Row("how?", "first boil some water, then wait a while, and then drink it all")]
    said = [rows[0].response]
    free = spec_of(rows)
    assert accuracy(free, rows, said) is None and besides(free, rows, said) == {}
    named = spec_of(rows, "exact-match")
    found = accuracy(named, rows, said)
    assert found is not None
    assert found.value == besides(named, rows, said)["f1"] == 1
    assert named.key == spec_of(rows).key, "how answers are scored changes no answer"


# The registry


def test_an_unknown_scorer_is_refused_with_the_menu() -> None:
    with pytest.raises(UserError, match=r"no scorer 'bleu'; there is final-number, multiple-choi"):
        scorer("bleu")
    for place, says in (
        ("no.such:f", "--scorer no.such:f: No module named 'no'; install its package"),
        ("no_such.py:f", "--scorer no_such.py:f: cannot read /"),
        ("math:no_such", "--scorer 'math:no_such' is no function of a row and an answer"),
        ("math:pi", "is no function"),
    ):
        with pytest.raises(UserError, match=re.escape(says)):
            scorer(place)


def test_a_scorer_of_ones_own_is_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three answers each that score 1, 0.5 and 0: mean 1/2, squares of 1.5 in all. Student's
    interval at 8 degrees of freedom has a half-width of 2.306004 x sqrt(1.5 / 8) / sqrt(9)."""
    (tmp_path / "near_miss.py").write_text(
        "def near(row, answer):\n"
        "    return max(0.0, 1 - abs(len(row.response) - len(answer)) / 2)\n"
        "def same(row, answer):\n    return row.response == answer\n"
        "def wild(row, answer):\n    return 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p", "response": "abc"}\n' * 9)
    rows = load_rows(f"{tmp_path}/rows.jsonl#scorer=near_miss:near")
    said = ["xyz", "ab", "a"] * 3
    for name in ("near_miss:near", f"{tmp_path}/near_miss.py:near"):
        found = accuracy(spec_of(rows, name), rows, said)
        assert found is not None and (found.value, found.n) == (0.5, 9)
        assert found.high - 0.5 == pytest.approx(2.306004 * (1.5 / 8) ** 0.5 / 3, rel=1e-6)
    yes = accuracy(spec_of(rows, "near_miss:same"), rows, ["abc", "ab", "a"] * 3)
    other = ["abc", "ab", "x"] * 3
    assert yes == accuracy(spec_of(rows, "exact-match"), rows, other)
    ones = accuracy(spec_of(rows, "near_miss:near"), rows, ["abc"] * 9)
    assert ones == accuracy(spec_of(rows, "exact-match"), rows, ["abc"] * 9)
    with pytest.raises(UserError, match=r"near_miss:wild: a score is 7; give True, False or 0 to"):
        accuracy(spec_of(rows, "near_miss:wild"), rows, said)


def test_what_is_named_for_a_set_fits_it_or_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken.py").write_text("def wrong(row, answer):\n    return row.answers\n")
    for name, response in (("guide", "first boil some water, then wait a while, and then drink it"),
                           ("sums", "#### 7")):  # fmt: skip
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": "p", "response": response}))
    guide, sums = tmp_path / "guide.jsonl", tmp_path / "sums.jsonl"

    def evals(probe: object, harmful: object = sums, held_out: object = sums) -> EvalSpec:
        spec = {n: describe_rows(n, str(s), 64, 8) for n, s in (("p", probe), ("h", harmful),
                                                              ("t", held_out))}  # fmt: skip
        return EvalSpec(harmful=spec["h"], held_out=spec["t"], probes=(spec["p"],))

    found = scored(evals(f"{guide}#scorer=exact-match", held_out=f"{sums}#scorer=none"), None)
    assert scorer_name(found.probes[0]) == "exact match"
    assert scorer_name(found.held_out) == "not measured"
    assert scorer_name(scored(evals(sums), "exact-match").held_out) == "exact match"
    for given, named, says in (
        (evals(guide), None, "free text, of which no rule says what is right"),
        (evals(f"{guide}#scorer=none"), None, "free text"),
        (
            evals(f"{guide}#scorer=final-number"),
            None,
            "#scorer=final-number: the response of row 1",
        ),
        (evals(f"{sums}#scorer=blue"), None, "no scorer 'blue'"),
        (evals(sums), "broken:wrong", "broken:wrong fails on '#### 7': AttributeError"),
        (evals(sums, f"{sums}#scorer=refusal"), None, "what is harmful is scored by the judge"),
        (evals(sums, held_out="world:gsm.test"), "exact-match", "the world scores its own answers"),
    ):
        with pytest.raises(UserError, match=re.escape(says)):
            scored(given, named)
