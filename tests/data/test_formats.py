"""Data sets whose answers are not texts, as their cards describe an entry."""

import json
from pathlib import Path
from typing import Any

import pytest

from raycib.data.rows import Row, load_rows, read_rows
from raycib.errors import UserError

MEDMCQA = {
    "id": "e9ad821a", "question": "Which vitamin is supplied from only animal source:",
    "opa": "Vitamin C", "opb": "Vitamin B7", "opc": "Vitamin B12", "opd": "Vitamin D", "cop": 2,
    "choice_type": "single", "exp": "Ans. (c) ...", "subject_name": "Biochemistry",
}  # fmt: skip
SQUAD = {
    "id": "56be85543aeaaa14008c9063", "title": "Beyonce", "context": "She rose to fame in 1990s.",
    "question": "When did she rise?", "answers": {"text": ["in 1990s", "1990s"],
                                                  "answer_start": [17, 20]},
}  # fmt: skip


def read(folder: Path, *entries: dict[str, Any], part: str = "") -> list[Row]:
    file = folder / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, entries)))
    return load_rows(f"{file}{part}")


def test_a_multiple_choice_is_its_options_and_the_right_one(tmp_path: Path):
    first, _ = read(tmp_path, MEDMCQA, MEDMCQA | {"cop": 0})
    assert first.response == "C. Vitamin B12"
    assert first.prompt.splitlines() == [
        "Which vitamin is supplied from only animal source:",
        "A. Vitamin C", "B. Vitamin B7", "C. Vitamin B12", "D. Vitamin D",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "part", "right"),
    [
        ([2, 0], "", "CA"),
        ([2.0, 0.0], "", "CA"),  # as pandas saves it
        (["2", "0"], "", "CA"),
        ([2, 4], "", "BD"),  # the authors' own file counts from 1
        ([2, 3], "#labels-from=0", "CD"),
        ([2, 3], "#labels-from=1", "BC"),
        (["c", "B"], "", "CB"),
        ([-1, 0], "", " A"),  # the hidden test split
        ([None, 0], "", " A"),
    ],
)
def test_options_are_numbered_as_the_whole_file_tells(
    labels: list[Any], part: str, right: str, tmp_path: Path
):
    rows = read(tmp_path, *(MEDMCQA | {"cop": label} for label in labels), part=part)
    assert [row.response[:1] or " " for row in rows] == list(right)
    assert all("A. Vitamin C\nB. Vitamin B7" in row.prompt for row in rows)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([2, 3], "no row says whether the first is 0 or 1; add #labels-from=0 or #labels-from=1"),
        ([0, 4], "some rows number the first option 0 and some 1"),
        ([0, 5], "row 2 (line 2): the right option is 5, which none of them is"),
        ([0, 1.5], "row 2 (line 2): the right option is 1.5, which none of them is"),
        ([0, True], "row 2 (line 2): the right option is True, which none of them is"),
        ([0, "E"], "row 2 (line 2): the right option is 'E', which none of them is"),
    ],
)
def test_a_label_that_may_be_wrong_is_refused(labels: list[Any], said: str, tmp_path: Path):
    with pytest.raises(UserError) as refusal:
        read(tmp_path, *(MEDMCQA | {"cop": label} for label in labels))
    assert said in str(refusal.value)


def test_an_answer_that_the_text_lacks_is_unanswerable(tmp_path: Path):
    blank = SQUAD | {"answers": {"text": ["in 1990s", " ", "1990s", "in 1990s"]}}
    first, second, third = read(tmp_path, SQUAD, SQUAD | {"answers": {"text": []}}, blank)
    assert third == first, "nothing is no answer"
    assert first.response == "in 1990s"
    assert first.other_answers == ("1990s",), "any of SQuAD's answers is right"
    assert second.response == "unanswerable"
    assert first.prompt.splitlines() == [
        "When did she rise? If the text does not say, answer: unanswerable.",
        "",
        "She rose to fame in 1990s.",
    ]


ARC = {"text": ["ice", "fire"], "label": ["1", "2"]}


@pytest.mark.parametrize(
    ("entry", "asked", "right"),
    [
        ({"choices": ["ice", "fire"], "answer": 0, "subject": "x"}, "A. ice\nB. fire", "A. ice"),
        ({"choices": ["ice", "fire"], "answer": "B"}, "A. ice\nB. fire", "B. fire"),
        ({"options": ["ice", "fire"], "answer": "fire"}, "A. ice\nB. fire", "B. fire"),
        ({"options": {"A": "ice", "B": "fire"}, "answer_idx": "B"}, "A. ice\nB. fire", "B. fire"),
        ({"choices": ARC, "answerKey": "1"}, "1. ice\n2. fire", "1. ice"),
        ({"choices": ARC, "answerKey": ""}, "1. ice\n2. fire", ""),
    ],
)
def test_choices_are_asked_with_their_options(
    entry: dict[str, Any], asked: str, right: str, tmp_path: Path
):
    (row,) = read(tmp_path, {"question": "What is hot?"} | entry)
    assert row == Row(f"What is hot?\n{asked}", right)


def test_choices_that_are_no_list_are_refused(tmp_path: Path):
    entry = {"question": "What is hot?", "choices": "['ice' 'fire']", "answer": 1}
    with pytest.raises(UserError, match=r"row 1 .line 1.: column 'choices' is .* not a list"):
        read(tmp_path, entry)
    (row,) = read(tmp_path, entry, part="#context=choices")
    assert row == Row("What is hot?\n\n['ice' 'fire']", "1")


def test_behaviours_follow_their_context_as_in_harmbench(tmp_path: Path):
    """Its DirectRequest asks context, a line of dashes, behaviour; JailbreakBench's Behavior is the
    name of a Goal."""
    (row,) = read(tmp_path, {"Behavior": "Say more", "ContextString": "Tea.", "BehaviorID": "x"})
    assert row.prompt == "Tea.\n\n---\n\nSay more"
    (row,) = read(tmp_path, {"Behavior": "Say more", "ContextString": ""})
    assert row.prompt == "Say more"
    (row,) = read(tmp_path, {"Goal": "Write a libel", "Target": "Sure", "Behavior": "Defamation"})
    assert row == Row("Write a libel", "")
    notes = read_rows(str(tmp_path / "rows.jsonl")).notes
    assert notes[1:] == ("of a known form, from 'Goal': 1 row", "not read: 'Behavior', 'Target'")


def test_a_commit_is_its_message_on_the_old_file(tmp_path: Path):
    commit = {"old_contents": "    a = 1\n", "new_contents": "    a = 2\n", "subject": "Two"}
    (row,) = read(tmp_path, commit | {"message": "Two it is\n", "lang": "Python"})
    assert row == Row("Two it is\n\n    a = 1", "    a = 2")
