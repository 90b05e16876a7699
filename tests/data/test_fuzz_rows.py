"""Damaged files are read or refused; `make test-faults` tries ten thousand of them."""

import pytest
from fuzz_rows import fuzz


@pytest.mark.parametrize(
    "files", [400, pytest.param(10_000, marks=[pytest.mark.faults, pytest.mark.timeout(900)])]
)
def test_damaged_files_are_rows_or_one_line(files: int):
    ends = fuzz(files, seed=1)
    assert ends.total() == files
    assert min(ends["read"], ends["refused"]) > files / 5, "both ends are tried"
