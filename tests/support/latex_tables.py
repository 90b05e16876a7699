"""What a LaTeX table holds, in whose parts a broad or a long one is printed."""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

from raycib.report.table import Table
from raycib.report.tables import write_table

_TABULAR = re.compile(
    r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}\n\\toprule\n(.*?)\\bottomrule", re.DOTALL
)


def assert_cells_of_text(latex: str) -> None:
    """Each row has as many cells as its part has columns, and nothing in them is LaTeX's own but
    signs of ours, such as $\\le$."""
    tabulars = _TABULAR.findall(latex)
    assert tabulars
    for shape, body in tabulars:
        rows = body.replace("\\midrule\n", "").splitlines()
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(shape) - 1}
        printed = re.sub(r"\$(-|\\[a-z]+)\$", "", body)
        assert not re.search(r"(?<!\\)[_%$]", printed)


def assert_tables_hold_text(tables: Iterable[Table], folder: Path) -> None:
    """Whatever labels are called: a CSV has its columns and no formula, Markdown no tag, and LaTeX
    cells of text."""
    for table in tables:
        files = write_table(table, folder, table.caption)
        rows = list(csv.reader(io.StringIO(files[0].read_text())))
        assert {len(row) for row in rows} == {len(table.rows.columns)}
        assert not [text for row in rows for text in row if text.startswith("=")]
        assert "<script" not in files[1].read_text().replace(r"\<", "")
        assert_cells_of_text(files[2].read_text())
