"""What a column is: every role finds its text, or the row is refused by name; what no role has is
said."""

import json
from pathlib import Path
from typing import Any

import pytest

from raycib.data.rows import Loaded, Row, describe_rows, describe_task, read_rows
from raycib.errors import UserError


def read(folder: Path, *entries: dict[str, Any], part: str = "") -> Loaded:
    file = folder / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, entries)))
    return read_rows(f"{file}{part}")


def refused(folder: Path, *entries: dict[str, Any], part: str = "") -> str:
    with pytest.raises(UserError) as refusal:
        read(folder, *entries, part=part)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def said(*turns: str, names: tuple[str, str] = ("role", "content")) -> list[dict[str, str]]:
    """Turns from "user: hello"."""
    return [dict(zip(names, turn.split(": ", 1), strict=True)) for turn in turns]


@pytest.mark.parametrize("name", ["PROMPT", " Prompt ", "instruction", "Goal", "\ufeffQuestion"])
def test_names_of_columns_may_vary_as_files_vary_them(name: str, tmp_path: Path):
    file = tmp_path / "rows.csv"
    file.write_text(f"{name},RESPONSE\na,b\n", encoding="utf-8")
    assert read_rows(str(file)).rows == [Row("a", "b")]


@pytest.mark.parametrize("name", ["system", "system_prompt", "System Prompt", "system-message"])
def test_a_system_prompt_is_part_of_the_row(name: str, tmp_path: Path):
    """As OpenOrca has it: another system prompt asks for another answer."""
    rows, notes = read(
        tmp_path,
        {"id": 1, name: "Answer in French.", "question": "Hello", "response": "Bonjour"},
        {"id": 2, name: "", "question": "Hello", "response": "Hello"},
    )
    assert rows == [Row("Hello", "Bonjour", "Answer in French."), Row("Hello", "Hello")]
    assert "system prompt: 1 row" in notes
    assert "not read: 'id'" in notes


@pytest.mark.parametrize(
    "entry",
    [
        {"messages": said("system: S", "user: U", "assistant: A")},
        {"conversations": said("human: U", "gpt: A", names=("from", "value")), "system": "S"},
        {"prompt": said("system: S", "user: U"), "completion": said("assistant: A")},
        {"prompt": "U", "system": "S", "completion": said("assistant: A")},
        {"prompt": "U", "messages": said("developer: S", "user: U", "assistant: A")},
    ],
)
def test_one_turn_of_each_is_a_row(entry: dict[str, Any], tmp_path: Path):
    assert read(tmp_path, entry).rows == [Row("U", "A", "S")]


def test_a_conversation_without_an_answer_is_a_prompt(tmp_path: Path):
    assert read(tmp_path, {"messages": said("user: U")}).rows == [Row("U", "")]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"messages": said("user: U", "assistant: A", "user: V", "assistant: B")}, "one prompt"),
        ({"messages": said("assistant: A")}, "turns of assistant, but a row has one prompt"),
        ({"messages": said("user: U", "tool: T")}, "a turn of 'tool', which a row cannot hold"),
        ({"messages": ["hello"]}, "column 'messages': 'hello' is no turn with role and content"),
        ({"messages": "hello"}, "column 'messages': 'hello' is not a list of turns"),
        ({"messages": [{"role": "user", "content": [{"text": "U"}]}]}, "is a list, not text"),
        ({"prompt": "X", "messages": said("user: U")}, "column and turns have another prompt"),
        ({"instruction": "a", "history": [["b", "c"]]}, "'history': a row cannot hold history"),
        ({"question": "a", "image": "a.png"}, "'image': a row cannot hold image"),
        ({"prompt": "a", "instruction": "b"}, "could each be the prompt; choose with #prompt="),
        ({"question": "a", "instruction": "b"}, "'instruction', 'question' could each be the"),
        ({"prompt": "a", "output": "b", "answer": "c"}, "could each be the response"),
        ({"prompt": "a", "input": "b", "context": "c"}, "could each be the context"),
        ({"prompt": " \n\t", "response": "b"}, "no text in the column of the prompt, 'prompt'"),
        ({"prompt": "[{'content': 'U', 'role': 'user'}]"}, "a list of turns written as text"),
        ({"prompt": 5}, "column 'prompt': 5 is a number, not text"),
        ({"prompt": "a", "answer": True}, "column 'answer': True is a boolean, not text"),
        ({"prompt": "a", "answer": ["b"]}, "column 'answer': ['b'] is a list, not text"),
        ({"prompt": "a", "answer": []}, "column 'answer': [] is a list, not text"),
        ({"prompt": "a", "answer": {"b": "c"}}, "column 'answer': {'b': 'c'} is an object"),
        ({"prompt": "a", "answer": float("inf")}, "column 'answer': inf is a number, not text"),
        ({"prompt": "a", "context": ["b"]}, "column 'context': ['b'] is a list, not text"),
        ({"prompt": "a", "system": 3}, "column 'system': 3 is a number, not text"),
    ],
)
def test_what_a_row_cannot_hold_is_refused_by_name(
    entry: dict[str, Any], reason: str, tmp_path: Path
):
    line = refused(tmp_path, {"prompt": "first"}, entry)
    assert "row 2 (line 2): " in line
    assert reason in line


def test_nothing_is_null_nan_or_white_space(tmp_path: Path):
    entries = [{"prompt": "a", "input": v, "answer": v} for v in (None, float("nan"), " ", "")]
    assert read(tmp_path, *entries).rows == [Row("a", "")] * 4
    assert read(tmp_path, {"prompt": "a", "history": []}).rows == [Row("a", "")]


def test_a_person_says_which_column_is_which(tmp_path: Path):
    entry = {"Goal": "g", "Target": "t", "Behavior": "b", "note": "n", "system": "s"}
    rows, notes = read(tmp_path, entry, part="#prompt=Goal#response=target#context=note#system=")
    assert rows == [Row("g\n\nn", "t")]
    assert "not read: 'Behavior', 'system'" in notes
    assert "has no column 'Tarjet'; it has 'Behavior', 'Goal'" in refused(
        tmp_path, entry, part="#response=Tarjet"
    )


def test_what_the_columns_of_mixed_rows_gave_is_said(tmp_path: Path):
    rows, notes = read(
        tmp_path, {"prompt": "a", "response": "b"}, {"question": "c", "answer": "d"}, {"goal": "e"}
    )
    assert rows == [Row("a", "b"), Row("c", "d"), Row("e", "")]
    assert "prompt from 'goal', 'prompt', 'question', response from 'answer', 'response'" in notes


def test_code_keeps_its_indentation(tmp_path: Path):
    (row,) = read(tmp_path, {"prompt": "\n  def f():\n", "response": " \n\n\treturn 1 \n\n"}).rows
    assert row == Row("  def f():", "\treturn 1")


def test_a_name_that_no_terminal_prints_is_escaped(tmp_path: Path):
    notes = read(tmp_path, {"prompt": "a", "\ud800\n\x1b": 1}).notes
    assert "not read: '\\ud800\\n\\x1b'" in notes


def test_rows_without_a_response_are_named_by_their_row_in_the_file(tmp_path: Path):
    """The twelfth row is the eleventh of those that are trained on."""
    entries: list[dict[str, Any]] = [
        {"prompt": f"p{n}", "answer": "" if n == 12 else "a"} for n in range(1, 21)
    ]
    read(tmp_path, *entries)
    with pytest.raises(UserError, match=r"1 row without a response .the first is row 12."):
        describe_task("task", f"{tmp_path}/rows.jsonl#train", 64)
    entries[19]["answer"] = None
    read(tmp_path, *entries)
    held_out = f"{tmp_path}/rows.jsonl#held-out"
    assert describe_rows("held out", held_out, 64, 8).num_rows == 2
    with pytest.raises(UserError, match=r"1 row without a response .the first is row 20."):
        describe_rows("held out", held_out, 64, 8, answered=True)
