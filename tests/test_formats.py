"""Data sets of the hub whose answers are not texts, as their cards describe an entry."""

import json
from pathlib import Path

from raycib.data.formats import flat
from raycib.data.rows import load_rows

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


def test_a_multiple_choice_is_its_options_and_the_right_one():
    found = flat(MEDMCQA)
    assert found["response"] == "C. Vitamin B12"
    assert found["prompt"].splitlines()[1:] == [
        "A. Vitamin C", "B. Vitamin B7", "C. Vitamin B12", "D. Vitamin D",
    ]  # fmt: skip


def test_an_answer_that_the_text_lacks_is_unanswerable():
    assert flat(SQUAD)["response"] == "in 1990s"
    assert flat(SQUAD | {"answers": {"text": [], "answer_start": []}})["response"] == "unanswerable"
    assert "unanswerable" in flat(SQUAD)["prompt"]


def test_other_entries_are_left_as_they_are():
    for entry in ({"prompt": "a", "response": "b"}, {"question": "q", "answers": "b"}, {}):
        assert flat(entry) is entry
    unlabelled = MEDMCQA | {"cop": -1}  # the hidden test split
    assert flat(unlabelled) is unlabelled


def test_such_rows_are_read_from_a_file(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, (MEDMCQA, SQUAD))))
    first, second = load_rows(str(file))
    assert first.response == "C. Vitamin B12"
    assert second.prompt.endswith("\n\nShe rose to fame in 1990s.")
