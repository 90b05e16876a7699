"""Tables: the paper's Table 3 for any sweep, and writers that no cell's text can break."""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from raycib.analysis.text import latex, markdown_cell, one_line, plain, spreadsheet_cell
from raycib.analysis.writing import write_text
from raycib.metrics import FURTHER_METRICS, METRICS

COLUMNS = {name: (one.heading, one.factor, one.decimals) for name, one in METRICS.items()}
"""Each measured column of Table 3: its heading, the factor of its unit, and its decimals."""

BEFORE = "before fine-tuning"
NOT_MEASURED = "not measured"


def cells_table(
    frame: pd.DataFrame, aligned: Mapping[str, Any] | None = None, strength: str = "Strength"
) -> pd.DataFrame:
    """One row of text for each cell: rates with Wilson's 95 % interval, n and unread verdicts.

    ``strength`` is the heading of the methods' strengths.
    """
    rows = []
    if aligned:
        rows.append(
            {"Cell": "aligned", "Method": BEFORE, strength: "", "Seed": ""} | _rates(aligned)
        )
    for cell in frame.to_dict("records"):
        place = {"Cell": str(cell["key"])[:12], "Method": cell["series"]}
        place |= {strength: f"{cell['lam']:g}", "Seed": str(cell["seed"])}
        why = {"Status": f"failed: {cell['failed']}"} if cell["failed"] else {}
        rates = _rates({str(k): v for k, v in cell.items()})
        rows.append(place | (dict.fromkeys(rates, "") | why if why else rates))
    return pd.DataFrame(rows).fillna("")


def spread(mean: float, std: float, factor: float = 1, decimals: int = 2) -> str:
    """ "mean ± std", the mean alone where there is no std, "" where there is no mean."""
    if not math.isfinite(mean):
        return ""
    tail = f" ± {std * factor:z.{decimals}f}" if math.isfinite(std) else ""
    return f"{mean * factor:z.{decimals}f}{tail}"


def shown(
    row: Mapping[Any, Any] | pd.Series, name: str, factor: float, decimals: int, alone: bool = False
) -> str:
    """A measure in a row of means over seeds, ``alone`` without its spread: "not measured" where
    cells finished without it, "" in the row of one that failed or of the model before."""
    std = math.nan if alone else row[f"{name}_std"]
    text = spread(row[f"{name}_mean"], std, factor, decimals)
    fine_tuned = row["method"] not in ("", BEFORE)
    return text or (NOT_MEASURED if row["seeds"] and fine_tuned else "")


def to_csv(table: pd.DataFrame) -> str:
    """CSV with numbers as numbers and text that no spreadsheet takes for a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([spreadsheet_cell(name) for name in table.columns])
    for row in table.itertuples(index=False):
        writer.writerow([_csv_cell(value) for value in row])
    return out.getvalue()


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


def to_latex(table: pd.DataFrame, caption: str = "") -> str:
    """A booktabs table (``\\usepackage{booktabs}``) with everything special escaped."""
    lines = [r"\begin{table}", r"\centering", r"\small"]
    lines.append(
        r"\begin{tabular}{" + "".join("r" if r else "l" for r in numeric_columns(table)) + "}"
    )
    lines += [r"\toprule", " & ".join(latex(name) for name in table.columns) + r" \\", r"\midrule"]
    lines += [
        " & ".join(latex(value) for value in row) + r" \\" for row in table.itertuples(index=False)
    ]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\caption{{{latex_caption(caption)}}}"] * bool(caption)
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def latex_caption(caption: str) -> str:
    """A caption of any length, escaped."""
    return " ".join(latex(word) for word in plain(caption).split())


def to_terminal(table: pd.DataFrame) -> str:
    """Aligned columns of plain text, without any control character."""
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


def write_table(
    table: pd.DataFrame, folder: Path, stem: str, shown: pd.DataFrame | None = None,
    caption: str = "", paper: pd.DataFrame | None = None,
) -> list[Path]:  # fmt: skip
    """Writes ``stem``.csv from ``table``, .md from ``shown`` (default: ``table``) and .tex from
    ``paper`` (default: what .md has)."""
    people = table if shown is None else shown
    printed = people if paper is None else paper
    return [
        write_text(folder / f"{stem}.csv", to_csv(table)),
        write_text(folder / f"{stem}.md", to_markdown(people)),
        write_text(folder / f"{stem}.tex", to_latex(printed, caption)),
    ]


def share(value: float) -> str:
    """A rate in [0, 1] as "20.6 %"."""
    return f"{100 * value:z.1f} %"


def p_text(p: float) -> str:
    """ ".0123" as "0.0123", the very small as "< 0.0001"."""
    return "<\u00a00.0001" if p < 0.0001 else f"{p:z.4f}"


def percent(scores: Mapping[str, Any], name: str) -> str:
    """ "20.6 [15.9, 26.0] of 260": a rate in per cent with its interval and count."""
    value = scores.get(name)
    if value is None or math.isnan(value):
        return ""
    ends = [scores.get(name + end) for end in ("_low", "_high")]
    text = f"{100 * value:z.1f}"
    if all(end is not None and math.isfinite(end) for end in ends):
        text += " [" + ", ".join(f"{100 * float(end or 0):z.1f}" for end in ends) + "]"
    count = scores.get(f"{name}_n")
    return f"{text} of {int(count)}" if count is not None and math.isfinite(count) else text


def _rates(scores: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, one in METRICS.items():
        if one.counted:
            found[one.heading] = percent(scores, name) or NOT_MEASURED
    found |= {one.heading: text for name, one in FURTHER_METRICS.items()
              if (text := percent(scores, name))}  # fmt: skip
    unread = scores.get("hrr_unread")
    counted = unread is not None and math.isfinite(unread)
    found["Unread"] = str(int(unread or 0)) if counted else ""
    for name in ("cosine", "negative_cosine"):
        value = scores.get(name)
        text = "" if value is None or math.isnan(value) else f"{value:z.2f}"
        found["cos(z, z ref)" if name == "cosine" else "Mean negative cos"] = text
    return found


def _csv_cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else spreadsheet_cell(value)
    if math.isfinite(value):
        return repr(value)
    return "" if math.isnan(value) else "infinite" if value > 0 else "minus infinite"


def numeric_columns(table: pd.DataFrame) -> list[bool]:
    """Whether each column's cells look like numbers, so that they stand to the right."""
    numeric = "0123456789.,-+−±<[]% of\u00a0"
    return [
        all(set(str(value).replace(NOT_MEASURED, "")) <= set(numeric) for value in table[name])
        for name in table.columns
    ]
