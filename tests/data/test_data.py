"""Rows from files: what is read, and that whatever cannot be read is said in one line."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from row_files import ROWS, WRITERS, as_csv, as_jsonl

from raycib.data.rows import Row, describe_rows, describe_task, fingerprint, load_rows, rows_of
from raycib.errors import UserError

Save = Callable[[str, str | bytes], str]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a file and return its path as a source."""

    def write(name: str, content: str | bytes) -> str:
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(raw)
        return str(tmp_path / name)

    return write


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(
    lambda text: text.strip()
)
tables = st.lists(st.tuples(texts, texts).map(lambda pair: Row(*pair)), min_size=1, max_size=5)


def kept(text: str) -> str:
    """What is kept of a text: all but blank lines before it and white space after it."""
    lines = text.rstrip().splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines) if line.strip())
    return "".join(lines[first:])


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_gives_the_rows_that_were_written(kind: str, save: Save):
    assert load_rows(save(f"rows.{kind}", WRITERS[kind](ROWS))) == ROWS


@pytest.mark.parametrize("kind", WRITERS)
def test_any_text_survives_the_round_trip(kind: str, tmp_path: Path):
    """Line separators of every kind, quotes, control characters, NUL; blank lines before a text
    and white space after it go."""
    path = tmp_path / f"rows.{kind}"

    @given(tables)
    def round_trip(rows: list[Row]) -> None:
        path.write_bytes(WRITERS[kind](rows).encode())
        assert load_rows(str(path)) == [Row(kept(row.prompt), kept(row.response)) for row in rows]

    round_trip()


def test_a_separator_inside_a_json_string_does_not_end_the_line(save: Save):
    """U+2028 and U+0085 end a line for Python's splitlines, not for JSON Lines."""
    rows = [Row("a\u2028b", "c\x85d")]
    assert load_rows(save("rows.jsonl", as_jsonl(rows, ensure_ascii=False))) == rows


@pytest.mark.parametrize("kind", WRITERS)
def test_a_byte_order_mark_is_no_part_of_the_first_column(kind: str, save: Save):
    content = b"\xef\xbb\xbf" + WRITERS[kind](ROWS).encode()
    assert load_rows(save(f"rows.{kind}", content)) == ROWS


@pytest.mark.parametrize("prompt", ["prompt", "instruction", "question", "goal", "Behavior"])
@pytest.mark.parametrize("response", ["response", "output", "answer", "completion"])
def test_columns_have_the_names_that_data_sets_use(prompt: str, response: str, save: Save):
    source = save("rows.csv", as_csv(ROWS, (prompt, response)))
    assert load_rows(source) == ROWS


@pytest.mark.parametrize("name", ["input", "context"])
def test_context_follows_the_prompt(name: str, save: Save):
    rows = [{"instruction": "Sum up", name: "A text", "output": "Short"}]
    rows += [{"instruction": "Sing", name: "", "output": "La"}]
    source = save("rows.json", json.dumps(rows))
    assert load_rows(source) == [Row("Sum up\n\nA text", "Short"), Row("Sing", "La")]


@pytest.mark.parametrize(
    "table",
    [
        {"instructions": ["One", "Two"]},
        {"instructions": ["One", "Two"], "inputs": []},
        {"instructions": ["One", "Two"], "tags": ["a", "b"], "inputs": []},
        {"data": [{"prompt": "One"}, {"prompt": "Two"}]},
        [{"prompt": "One"}, {"prompt": "Two", "answer": None}],
    ],
)
def test_json_may_hold_rows_columns_or_rows_under_a_name(table: object, save: Save):
    assert load_rows(save("rows.json", json.dumps(table))) == [Row("One", ""), Row("Two", "")]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_very_long_response_is_read(kind: str, save: Save):
    """Python's csv refuses fields of more than 131,072 characters unless told otherwise."""
    rows = [Row("Tell me all", "word " * 60_000 + "end")]
    assert load_rows(save(f"rows.{kind}", WRITERS[kind](rows))) == rows


def refused(source: str, part: str = "") -> str:
    """The one line that says what is wrong, where, and what to do."""
    with pytest.raises(UserError) as refusal:
        load_rows(source + part)
    line = str(refusal.value)
    assert "\n" not in line
    assert len(line) < 600
    return line


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.csv", "", "'{}' has no rows"),
        ("r.jsonl", "", "'{}' has no rows"),
        ("r.jsonl", "\n \n", "'{}' has no rows"),
        ("r.json", "", "'{}' is not JSON: Expecting value"),
        ("r.json", "[]", "'{}' has no rows"),
        ("r.json", "{}", "'{}' holds dict, not a list of rows; give one"),
        ("r.json", "5", "'{}' holds a number, not a list of rows"),
        ("r.json", '{"a": "xyz", "b": 5}', "'{}' holds dict, not a list of rows"),
        ("r.json", '{"prompt": ["a", "b"], "answer": ["c"]}', "columns of unequal length"),
        ("r.json", '{"prompt": [5, [1]]}', "row 1: column 'prompt': 5 is a number, not text"),
        ("r.json", "[" * 100_000, "'{}' is not JSON"),
        ("r.json", '[{"prompt": ' + "1" * 5000 + "}]", "row 1: column 'prompt': 1111"),
        ("r.json", '[{"prompt": "\\ud800"}]', "row 1: half of a character"),
        ("r.jsonl", '{"prompt": "a"}\n{"prompt": ', "'{}', line 2 is not JSON"),
        ("r.jsonl", '{"prompt": "a"}\n\n["b"]', "row 2 (line 3): found ['b'], not named columns"),
        ("r.jsonl", '{"prompt": " "}', "no text in the column of the prompt, 'prompt'; mend"),
        ("r.jsonl", '[{"prompt": "a"}]', "not named columns; name it .json if it is one list"),
        ("r.jsonl", '[\n{"prompt": "a"}\n]', "name it .json if it is one list of rows"),
        ("r.csv", "text,label\nx,y\n", "row 1 (line 2): no prompt in columns 'label', 'text'"),
        ("r.csv", 'prompt\na\n"b" c\n', "'{}', line 3 is not CSV: ',' expected"),
        ("r.csv", 'prompt\n"never closed\n', "is not CSV: unexpected end of data"),
        ("r.csv", b"prompt\n\xff\xfe\n", "is not UTF-8 text (byte 7, line 2); convert it"),
        ("r.txt", "prompt", "'{}' ends in '.txt'; give a .json, .jsonl, .csv, .tsv or .parquet"),
        ("rows", "prompt", "'{}' ends in ''; give a .json, .jsonl, .csv, .tsv or .parquet"),
    ],
)
def test_what_cannot_be_read_is_said(name: str, content: str | bytes, said: str, save: Save):
    source = save(name, content)
    assert said.replace("{}", source) in refused(source)


def test_what_is_no_file_is_said(tmp_path: Path):
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("folder.json", "pipe.json", "/dev/zero", "/"):
        assert "no ordinary file at" in refused(str(tmp_path / name))
    for source in (
        str(tmp_path / "missing.json"),
        str(tmp_path / "nul\0.json"),
        "~no-such-user-here/rows.json",
    ):
        assert "no data file at" in refused(source)
    assert "no ordinary file at '.'" in refused("")
    assert "cannot be read: File name too long" in refused(f"{tmp_path}/{'x' * 300}.json")


def test_a_task_needs_a_response_in_every_row(save: Save):
    source = save("rows.jsonl", as_jsonl([*ROWS, Row("No answer", ""), Row("None", " ")]))
    with pytest.raises(UserError, match=r"has 2 rows without a response .the first is row 4."):
        describe_task("task", source, 64)
    assert describe_rows("asked", source, 64, 8).num_rows == 5


# Cutting a file in two


@pytest.mark.parametrize(
    ("count", "held_out"), [(10, 1), (19, 1), (20, 2), (4999, 499), (6000, 500)]
)
def test_the_two_parts_are_disjoint_and_complete(count: int, held_out: int, save: Save):
    """Every tenth row is held out, at most 500."""
    rows = [Row(f"prompt {n}", f"response {n}") for n in range(count)]
    source = save("rows.jsonl", as_jsonl(rows))
    train, held = load_rows(source + "#train"), load_rows(source + "#held-out")
    assert (len(train), len(held)) == (count - held_out, held_out)
    assert not set(train) & set(held)
    assert set(train) | set(held) == set(rows)
    assert held == rows[9:5000:10]
    assert train == [row for number, row in enumerate(rows) if number % 10 != 9 or number >= 5000]


def test_a_part_that_would_be_empty_or_unknown_is_refused(save: Save):
    source = save("rows.jsonl", as_jsonl(ROWS))
    assert load_rows(source + "#train") == ROWS
    assert "has 3 rows, of which none is held out; a task needs at least 10" in refused(
        source, "#held-out"
    )
    assert "unknown part 'test'" in refused(source, "#test")


# Identity


def test_a_fingerprint_sees_every_character_and_the_order_of_rows():
    others = [
        ROWS[::-1],
        ROWS[:2],
        [*ROWS[:2], Row("Go", "x" * 8)],
        [*ROWS[:2], Row("Gox", "x" * 8)],  # the same characters, cut elsewhere
    ]
    assert len({fingerprint(rows) for rows in (ROWS, *others)}) == 5
    assert fingerprint([Row(*row) for row in ROWS]) == fingerprint(ROWS)


def test_rows_that_changed_since_the_plan_are_refused(save: Save):
    source = save("rows.jsonl", as_jsonl(ROWS))
    spec = describe_task("task", source, 64)
    assert rows_of(spec) == ROWS
    save("rows.jsonl", as_jsonl(ROWS[::-1]))
    with pytest.raises(
        UserError, match=r"changed since the plan was made .* start the sweep again"
    ):
        rows_of(spec)


def test_the_format_of_a_file_is_no_part_of_its_identity(save: Save):
    specs = [
        describe_task("task", save(f"rows.{kind}", write(ROWS)), 64)
        for kind, write in WRITERS.items()
    ]
    assert len({spec.key for spec in specs}) == 1


# Data sets that people have


DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.skipif(not DATA.is_dir(), reason="no real data sets in ../shared/data")
@pytest.mark.parametrize(
    ("file", "count", "answered"),
    [
        ("gsm8k/train.jsonl", 7473, 7473),
        ("gsm8k/test.jsonl", 1319, 1319),
        ("advbench/harmful_behaviors.csv", 520, 0),  # its targets are no answers to learn
        ("dolly/dolly_387.jsonl", 387, 387),
        ("alpaca/alpaca_en_demo.json", 999, 999),
        ("safety/I-CoNa.json", 178, 0),
        ("safety/I-MaliciousInstructions.json", 100, 0),
        ("safety/Q-Harm.json", 100, 0),
        ("safety/safety_only_data_Instructions.json", 2483, 2483),
    ],
)
def test_real_data_sets_load_whole(file: str, count: int, answered: int):
    rows = load_rows(str(DATA / file))
    assert (len(rows), sum(bool(row.response) for row in rows)) == (count, answered)
