"""Tables in files and on the terminal: no cell's text can break them, or act on their reader."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raycib.report.latex import to_latex
from raycib.report.table import Table, naming, numeric_columns
from raycib.report.text import markdown_cell, one_line, spreadsheet_cell
from raycib.report.writing import write_text


def to_csv(table: pd.DataFrame) -> str:
    """CSV with numbers as numbers and text that no spreadsheet takes for a formula."""
    safe = table.map(_csv_cell).rename(columns=spreadsheet_cell)
    return safe.to_csv(index=False, lineterminator="\n")


def to_markdown(table: pd.DataFrame) -> str:
    """A Markdown table; columns whose cells are numbers stand to the right."""
    heads = [markdown_cell(name) for name in table.columns]
    lines = ["| " + " | ".join(heads) + " |"]
    lines.append(
        "|" + "|".join("--:" if right else "---" for right in numeric_columns(table)) + "|"
    )
    for row in table.itertuples(index=False):
        lines.append("| " + " | ".join(markdown_cell(value) for value in row) + " |")
    return "\n".join(lines) + "\n"


def to_terminal(table: pd.DataFrame, width: int | None = None) -> str:
    """Aligned columns of plain text, without any control character. Where they are broader than
    ``width``, parts of them below one another, which begin with the same columns."""
    if width is not None:
        names, parts = [*range(naming(table))], [[*range(naming(table))]]
        for place in range(len(names), table.shape[1]):
            wider = table.iloc[:, [*parts[-1], place]]
            broad = max(map(len, to_terminal(wider).splitlines()))
            if len(parts[-1]) > len(names) and broad > width:
                parts.append([*names])
            parts[-1].append(place)
        return "\n\n".join(to_terminal(table.iloc[:, part]) for part in parts)
    right = numeric_columns(table)
    grid = [[one_line(name) for name in table.columns]]
    grid += [[one_line(value) for value in row] for row in table.itertuples(index=False)]
    widths = [max(len(line[i]) for line in grid) for i in range(len(right))]
    grid.insert(1, ["─" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.rjust(width) if r else cell.ljust(width)
            for cell, width, r in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in grid
    )


def write_table(table: Table, folder: Path, caption: str = "") -> list[Path]:
    """Writes the numbers as .csv, what people see as .md and the brief form as .tex."""
    return [
        write_text(folder / f"{table.stem}.csv", to_csv(table.rows)),
        write_text(folder / f"{table.stem}.md", to_markdown(table.shown)),
        write_text(folder / f"{table.stem}.tex", to_latex(table.brief, caption)),
    ]


def _csv_cell(value: Any) -> str:
    number = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool) or not number:
        return "" if value is None else spreadsheet_cell(value)
    if math.isfinite(value):
        return str(value)
    return "" if math.isnan(value) else "infinite" if value > 0 else "minus infinite"
