"""Files as tables: every format reads what other libraries wrote, and a damaged table is refused
with its row and line."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from raycib.data.rows import Row, load_rows, read_rows
from raycib.errors import UserError

TABLE = pd.DataFrame(
    {
        "Prompt": ['Say "hi", please', "One\nTwo;\tThree", "    indented ä 漢", "plain"],
        "response": ["a, b", "c\r\nd", "    return 1", "e"],
        "n": [1.5, 2.0, float("nan"), 4.0],
    }
)
ROWS = [Row(*pair) for pair in zip(TABLE["Prompt"], TABLE["response"], strict=True)]
WRITERS: dict[str, Callable[[Path], object]] = {
    "rows.csv": lambda path: TABLE.to_csv(path, index=False),
    "index.csv": lambda path: TABLE.to_csv(path),
    "bom.csv": lambda path: TABLE.to_csv(path, index=False, encoding="utf-8-sig"),
    "semicolon.csv": lambda path: TABLE.to_csv(path, index=False, sep=";"),
    "tab.csv": lambda path: TABLE.to_csv(path, index=False, sep="\t"),
    "pipe.csv": lambda path: TABLE.to_csv(path, index=False, sep="|"),
    "quoted.csv": lambda path: TABLE.to_csv(path, index=False, quoting=1),
    "rows.tsv": lambda path: TABLE.to_csv(path, index=False, sep="\t"),
    "rows.csv.gz": lambda path: TABLE.to_csv(path, index=False),
    "rows.jsonl": lambda path: TABLE.to_json(path, orient="records", lines=True),
    "rows.jsonl.gz": lambda path: TABLE.to_json(path, orient="records", lines=True),
    "rows.ndjson": lambda path: TABLE.to_json(path, orient="records", lines=True),
    "rows.json": lambda path: TABLE.to_json(path, orient="records"),
    "columns.json": lambda path: path.write_text(json.dumps(TABLE.to_dict("list"))),
    "rows.parquet": lambda path: TABLE.to_parquet(path),
}
"""By pandas, which knows nothing of this project."""


@pytest.mark.parametrize("name", WRITERS)
def test_what_pandas_writes_is_read(name: str, tmp_path: Path):
    WRITERS[name](tmp_path / name)
    loaded = read_rows(str(tmp_path / name))
    assert loaded.rows == ROWS
    assert "prompt from 'Prompt', response from 'response'" in loaded.notes
    unread = "(no name), 'n'" if name == "index.csv" else "'n'"
    assert f"not read: {unread}" in loaded.notes


def refused(path: Path, content: str | bytes) -> str:
    """The line that refuses a file of this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as refusal:
        load_rows(str(path))
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("prompt,response\na,b\nWhat?,Well, often\n", "row 2 (line 3): 3 fields under a header of"),
        ("prompt,response\na,b\n\nWhat?\n", "row 2 (line 4): 1 fields under a header of 2"),
        ('prompt,response\n"a\nb",c\nd\n', "row 2 (line 4): 1 fields under a header of 2"),
        ("prompt,response,prompt\na,b,c\n", "has two columns 'prompt'"),
        ("prompt, prompt \na,b\n", "has two columns 'prompt'"),
        ("prompt,Prompt\na,b\n", "columns 'Prompt', 'prompt' have one name"),
        ('prompt,response\na,b\n"c,d\ne,f\n', "line 3 is not CSV: unexpected end of data"),
        ("prompt;x|response\na;b|c\n", "no prompt in columns 'prompt;x|response'"),
        ("prompt;response\na;b;c\n", "row 1 (line 2): 3 fields under a header of 2"),
        ("prompt,response\na,b\n".encode("utf-16"), "is UTF-16 or UTF-32 text; save it as UTF-8"),
        ("prompt,response\na,b\n".encode("utf-16-be"), "is UTF-16 or UTF-32 text"),
        ("prompt,response\na,b\n".encode("utf-32"), "is UTF-16 or UTF-32 text"),
        ("prompt\nok\ncafé\n".encode("latin-1"), "is not UTF-8 text (byte 13, line 3)"),
        ("version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("prompt,response\n,\n \n", "has no rows"),
    ],
)
def test_a_csv_file_that_would_lose_something_is_refused(
    content: str | bytes, said: str, tmp_path: Path
):
    assert said in refused(tmp_path / "rows.csv", content)


def test_blank_rows_are_counted(tmp_path: Path):
    (tmp_path / "rows.csv").write_text("prompt,response\na,b\n\n,\n \nc,d\n , \n")
    loaded = read_rows(str(tmp_path / "rows.csv"))
    assert loaded.rows == [Row("a", "b"), Row("c", "d")]
    assert "2 blank rows skipped" in loaded.notes


def test_blanks_behind_commas_are_none_of_the_text(tmp_path: Path):
    (tmp_path / "rows.csv").write_text('prompt, response\n"a, b", "c, d"\n')
    assert load_rows(str(tmp_path / "rows.csv")) == [Row("a, b", "c, d")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.jsonl", '{"prompt": "a", "prompt": "b"}', "line 1 is not JSON: an object has 'prompt'"),
        ("r.json", '[{"prompt": "a", "x": {"y": 1, "y": 2}}]', "an object has 'y' twice"),
        ("r.json", '{"train": [{"prompt": "a"}], "test": [{"prompt": "b"}]}', "rows under"),
        ("r.json", '{"prompt": "a"}\n{"prompt": "b"}', "name it .jsonl if it has a row on each"),
        ("r.jsonl", '{"prompt": "a"}\n{"prompt": "b",}', "line 2 is not JSON"),
        ("r.jsonl", "null", "row 1 (line 1): found None, not named columns"),
        ("r.jsonl", "[" * 500 + "]" * 500, "row 1 (line 1): found [[[[[[[...]]]]]]], not named"),
        ("r.jsonl.gz", gzip.compress(b'{"prompt": "a"}' * 99)[:40], "is not a whole gzip file"),
        ("r.jsonl.gz", b'{"prompt": "a"}', "is not a whole gzip file"),
        ("r.parquet", b"", "is not a readable Parquet file"),
        ("r.parquet", b"PAR1" + bytes(60) + b"PAR1", "is not a readable Parquet file"),
        ("r.xlsx", b"PK", "ends in '.xlsx'; give a"),
    ],
)
def test_other_damage_is_refused(name: str, content: str | bytes, said: str, tmp_path: Path):
    assert said in refused(tmp_path / name, content)


def test_what_stands_beside_the_rows_of_a_json_file_is_said(tmp_path: Path):
    table = {"version": "1", "data": [{"prompt": "a"}], "tags": ["x"], "none": []}
    (tmp_path / "rows.json").write_text(json.dumps(table))
    loaded = read_rows(str(tmp_path / "rows.json"))
    assert loaded.rows == [Row("a", "")]
    assert "not read, beside the rows: 'tags', 'version'" in loaded.notes


def test_numbers_are_read_as_they_are_written(tmp_path: Path):
    answers = ["42", "3.10", "1e400", "-0", "1" * 5000]
    lines = [f'{{"question": "{n}?", "answer": {text}}}' for n, text in enumerate(answers)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    loaded = read_rows(str(tmp_path / "rows.jsonl"))
    assert [row.response for row in loaded.rows] == answers
    assert "number as the response: 5 rows" in loaded.notes


def test_a_data_set_of_the_hub_reads_as_its_file_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`datasets` takes a folder for a data set, so that no network is needed."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    entries: list[dict[str, object]] = [
        {"Goal": f"g{n}", "Target": "t", "Behavior": "b", "n": n} for n in range(10)
    ]
    file, hub = tmp_path / "set" / "train.jsonl", f"hub:{tmp_path}/set:train"
    file.parent.mkdir()
    file.write_text("\n".join(map(json.dumps, entries)))
    assert read_rows(f"{hub}#prompt=Goal#held-out") == read_rows(f"{file}#prompt=Goal#held-out")
    with pytest.raises(UserError, match=r"data set '.*none:train' could not be loaded: "):
        load_rows(f"hub:{tmp_path}/none:train")
    entries[2]["Goal"] = None
    file.write_text("\n".join(map(json.dumps, entries)))
    with pytest.raises(UserError, match="set:train', row 3: no text in the column of the prompt"):
        load_rows(hub)
