"""Data sets of the hub through its real client, and the same without any network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycib.data.rows import load_rows
from raycib.errors import UserError

SPLITS = "hub:openai/gsm8k@main:train#first-20", "hub:openai/gsm8k@main:test"
FILE = "hub:Open-Orca/OpenOrca/answers.parquet#first-20#train#first-15"
READ = """
import json, sys
from raycib.data.rows import load_rows
print(json.dumps([load_rows(source) for source in sys.argv[1:]]))
"""
CARD = """---
configs:
- config_name: main
  data_files: [{split: train, path: train.parquet}, {split: test, path: test.parquet}]
---
"""


def write(file: Path, rows: list[dict[str, str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)


def read(home: Path, endpoint: str, *sources: str, offline: bool = False) -> list[list[list[str]]]:
    there = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", READ, *sources], env=env | there, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_splits_and_files_are_fetched_once_and_read_offline(tmp_path: Path) -> None:
    sums = tmp_path / "hub" / "datasets" / "openai" / "gsm8k"
    write(sums / "train.parquet", [{"question": f"{n}?", "answer": f"{n}"} for n in range(30)])
    write(sums / "test.parquet", [{"question": "x?", "answer": "9"}])
    (sums / "README.md").write_text(CARD)
    orca = [{"system_prompt": "S", "question": f"q{n}", "response": "r"} for n in range(30)]
    write(tmp_path / "hub" / "datasets" / "Open-Orca" / "OpenOrca" / "answers.parquet", orca)
    with hub.hub(tmp_path / "hub") as (address, asked):
        train, test, rows = read(tmp_path / "home", address, *SPLITS, FILE)
        assert [row[:2] for row in train] == [[f"{n}?", f"{n}"] for n in range(20)]
        assert [row[:2] for row in test] == [["x?", "9"]]
        # Of the first twenty, two are held out; of the others the first fifteen.
        numbers = [n for n in range(20) if n % 10 != 9][:15]
        assert [row[:3] for row in rows] == [[f"q{n}", "r", "S"] for n in numbers]
        before = len(asked)
        assert before
        again = read(tmp_path / "home", address, *SPLITS, FILE, offline=True)
        assert again == [train, test, rows]
        assert len(asked) == before


def test_rows_behind_the_last_that_is_needed_are_not_read(tmp_path: Path) -> None:
    """Of a million rows twenty thousand are wanted; of a filtered set, all."""
    file = tmp_path / "rows.parquet"
    write(file, [{"prompt": "a", "response": "b"}, {"prompt": "c", "response": "d"}] + [{}] * 5)
    assert [row.prompt for row in load_rows(f"{file}#first-2")] == ["a", "c"]
    for whole in (str(file), f"{file}#first-3", f"{file}#only=prompt:*#first-1"):
        with pytest.raises(UserError, match="row 3: no text"):
            load_rows(whole)


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path: Path) -> None:
    """Its clients by themselves try five times for each file, with a line on stderr each."""
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", READ, SPLITS[0]], env=env | nobody, capture_output=True, text=True
    )
    assert "Retrying" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "raycib.errors.NotHere: data set 'openai/gsm8k@main:train' could not be loaded" in last
    assert "check the name and the network" in last
