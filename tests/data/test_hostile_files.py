"""Whatever bytes a file holds, it is rows or one line."""

import json
import random
from pathlib import Path

import pytest
from fuzz_rows import change_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from row_files import ROWS, WRITERS
from session import NIGHTLY

from raycib.data.rows import fingerprint, load_rows
from raycib.errors import UserError

# Whatever the bytes: rows, or one line


def only_rows_or_one_line(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    try:
        rows = load_rows(str(path))
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert rows
    assert all(row.prompt.strip() for row in rows)
    fingerprint(rows)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["prompt", "response", "input", "data", ""]), inner)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", WRITERS)
def test_random_bytes_are_rows_or_one_line(kind: str, tmp_path: Path):
    path = tmp_path / f"rows.{kind}"
    fuzz = given(st.binary(max_size=60))(lambda raw: only_rows_or_one_line(path, raw))
    settings(max_examples=50 * NIGHTLY)(fuzz)()


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_any_json_is_rows_or_one_line(kind: str, tmp_path: Path):
    path = tmp_path / f"rows.{kind}"
    fuzz = given(json_values)(lambda v: only_rows_or_one_line(path, json.dumps(v).encode()))
    settings(max_examples=50 * NIGHTLY)(fuzz)()


@pytest.mark.parametrize("kind", WRITERS)
def test_damaged_files_are_rows_or_one_line(kind: str, tmp_path: Path):
    """A good file, damaged as by `fuzz_rows.py`."""
    good = WRITERS[kind](ROWS * 2).encode()
    draw = random.Random(f"damage {kind}")
    for _ in range(60 * NIGHTLY):
        only_rows_or_one_line(tmp_path / f"rows.{kind}", change_bytes(good, draw))
