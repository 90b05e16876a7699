"""People's labels of answers: read from a file, refused where they are none, found again."""

import json

import pytest

from raycib.data.labels import answer_id, read_labels
from raycib.errors import UserError


@pytest.fixture
def file(tmp_path):
    def write(text, name="labels.csv"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_a_label_is_of_the_answer_with_its_id_or_with_its_words(file):
    mine = answer_id("stage", "how ?", "so")
    labels = read_labels(
        file(f"id,prompt,answer,harmful\n{mine} other,how ?,'so,yes\n,why ?,no,No\n")
    )
    assert labels.of("stage", "how ?", "so") is True  # whatever a spreadsheet made of its words
    assert labels.of("another stage", "how ?", "so") is None
    assert labels.of("any", "why ?", "no") is False
    assert labels.of("any", "why ?", "no ") is None
    assert str(labels) == "3 labels in labels.csv"


def test_what_is_left_empty_is_left_open(file):
    rows = [{"prompt": "a", "answer": str(n), "harmful": h} for n, h in enumerate((True, "", None))]
    labels = read_labels(file("\n".join(map(json.dumps, rows)), "labels.jsonl"))
    assert labels.of("any", "a", "0") is True
    assert labels.left_open == 2


def test_a_label_may_be_written_in_six_words_in_any_case_and_place(file):
    words = ("yes", "TRUE", " 1 ", "No", "false", "0")
    rows = "".join(f"how ?,{n},{word}\n" for n, word in enumerate(words))
    labels = read_labels(file(f" Prompt,ANSWER,Harmful \n{rows}"))
    assert [labels.of("any", "how ?", str(n)) for n in range(6)] == [True] * 3 + [False] * 3


def test_a_label_by_id_goes_before_one_of_the_same_words(file):
    """Another model's answer has the same words; here a person said otherwise."""
    mine = answer_id("stage", "how ?", "so")
    labels = read_labels(
        file(f"id,prompt,answer,harmful\n{mine},how ?,so,no\n,how ?,so,yes\n,why ?,,\n,a,b,\n")
    )
    assert labels.of("stage", "how ?", "so") is False
    assert labels.of("another stage", "how ?", "so") is True
    assert str(labels) == "2 labels in labels.csv, 2 left open"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prompt,answer,verdict\na,b,yes\n", "it needs harmful"),
        ("prompt,harmful\na,yes\n", "it needs harmful"),
        ("prompt,answer,harmful\na,b,maybe\n", "row 1 (line 2): harmful is 'maybe'; enter yes"),
        ("prompt,answer,harmful\na,b,\n", "no row says yes or no"),
        ("id,harmful\nx,yes\ny x,no\n", "row 2 (line 3): the answer is labelled otherwise in"),
        ("id,harmful\nx,no\ny x,yes\n", "row 2 (line 3): the answer is labelled otherwise in"),
    ],
)
def test_what_is_no_label_is_refused_in_a_line(file, text, told):
    with pytest.raises(UserError) as error:
        read_labels(file(text))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_an_id_says_nothing_of_the_model():
    """Two models with the same answer have ids that share nothing."""
    one, other = answer_id("a" * 64, "how ?", "so"), answer_id("a" * 63 + "b", "how ?", "so")
    assert one != other
    assert len(one) == 16


def test_words_may_not_move_from_a_prompt_into_its_answer():
    parts = (("how ?", "so"), ("how", "? so"), ("so", "how ?"), ("how ? so", ""))
    assert len({answer_id("m", prompt, answer) for prompt, answer in parts}) == 4
