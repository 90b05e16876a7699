"""LaTeX tables compile, and stand in the columns of a paper: measured by LaTeX itself."""

import re
import shutil
import subprocess

import pandas as pd
import pytest
from summaries import (
    HOSTILE,
    ablation_sweep,
    comparison_sweep,
    gaps_sweep,
    orders_sweep,
    reported,
    samples,
    sweep,
)

from raycib.report.latex import latex, to_latex

PDFLATEX = shutil.which("pdflatex")
compiled = pytest.mark.skipif(
    not PDFLATEX, reason="no pdflatex: apt-get install texlive-latex-base texlive-latex-recommended"
)
PAPER = r"""\documentclass[twocolumn]{article}
\usepackage[paperwidth=8.5in, paperheight=11in, textwidth=6.9in, columnsep=0.3in,
  textheight=9in]{geometry}
\usepackage[utf8]{inputenc}\usepackage[T1]{fontenc}\usepackage{booktabs}
\begin{document}
\typeout{COLUMN \the\columnwidth}
%s
\end{document}
"""
"""Columns of 3.3 inches."""


def log_of(tables, folder):
    """What LaTeX says of tables, one after the other; it stops at nothing."""
    body = "\n".join(rf"\typeout{{TABLE {name}}}{text}\clearpage" for name, text in tables.items())
    (folder / "paper.tex").write_text(PAPER % body, encoding="utf-8")
    assert PDFLATEX
    command = [PDFLATEX, "-interaction=nonstopmode", "paper.tex"]
    subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
    return (folder / "paper.log").read_text(encoding="utf-8", errors="replace")


def complaints(log):
    """Errors, and what is too wide or too high."""
    return re.findall(r"^(?:TABLE .*|Overfull .*|!.*|LaTeX Warning: Float too large.*)$", log, re.M)


@compiled
def test_every_table_of_every_study_fits_a_column_or_the_page(tmp_path):
    tables = {}
    for summary in (
        sweep(), comparison_sweep(), ablation_sweep(), gaps_sweep(), orders_sweep()
    ):  # fmt: skip
        report = reported(summary, samples(summary, 12))
        for table in report.tables:
            name = f"{summary['sweep']} {table.stem}"
            tables[name] = to_latex(table.brief, report.caption(table))
    assert len(tables) > 15
    log = log_of(tables, tmp_path)
    assert "COLUMN 238.49" in log
    assert complaints(log) == [f"TABLE {name}" for name in tables]


@compiled
def test_the_ruler_finds_what_is_too_wide_and_what_is_no_latex(tmp_path):
    wide = r"\begin{table}\begin{tabular}{l}" + "much too wide " * 9 + r"\end{tabular}\end{table}"
    found = "\n".join(complaints(log_of({"wide": wide, "wrong": r"\nothing $_$"}, tmp_path)))
    assert "Overfull" in found and "! Undefined control sequence" in found


@compiled
def test_any_text_and_any_number_of_rows_and_columns_fit(tmp_path):
    columns = {f"a rather long head, {n} nats": ["2.170 ± 0.055"] * 70 for n in range(14)}
    table = pd.DataFrame({"Method": [f"method {n}" for n in range(70)]} | columns)
    text = to_latex(table, "A caption.")
    assert text.count(r"\caption") == 1 and text.count("(continued)") == 3
    assert all(text.count(f"method {n} ") == 2 for n in range(70))  # once for each half
    names = [*HOSTILE, "λ ≤ 2 · Σ̂²"]
    hostile = pd.DataFrame({"Name": names, "Note": ["word " * 60] * len(names)}, dtype=object)
    log = log_of({"large": text, "hostile": to_latex(hostile, HOSTILE[0])}, tmp_path)
    assert complaints(log) == ["TABLE large", "TABLE hostile"]


@compiled
def test_a_line_may_begin_with_a_bracket_or_a_star(tmp_path):
    """After the end of a line LaTeX would take them for how much room to leave, and leave the
    numbers out."""
    words = ["word " * n + "[-1.00, -0.25] * of 4" for n in range(1, 12)]
    names = ["* starred", *[f"[{n}] name" for n in range(len(words) - 1)]]
    text = to_latex(pd.DataFrame({"Method": names} | {f"Of {n}": words for n in range(5)}))
    assert r"\\ {}[-1.00" in text and "\n{}[0] name" in text
    assert complaints(log_of({"brackets": text}, tmp_path)) == ["TABLE brackets"]


def test_columns_of_one_name_keep_their_own_numbers():
    table = pd.DataFrame([["LoRA", "1.5", "a"], ["CIB", "3.5", "b"]], columns=["Of", "it", "it"])
    text = to_latex(table)
    assert "LoRA & 1.5 & a" in text and "CIB & 3.5 & b" in text and "{@{}lrl@{}}" in text


def test_what_is_narrow_stands_in_a_column_and_what_is_wide_over_both():
    narrow = pd.DataFrame({"Method": ["CIB"], "HRR, %": ["20.6 ± 2.5"]})
    assert to_latex(narrow).startswith("\\begin{table}\n")
    wide = pd.concat([narrow] + [narrow.add_suffix(f" {n}") for n in range(4)], axis=1)
    assert to_latex(wide).startswith("\\begin{table*}\n")


def test_letters_below_a_hat_are_one_letter():
    assert latex("tr Σ̂ of μ̂, n²") == (r"tr $\hat{\Sigma}$ of $\hat{\mu}$, n\textsuperscript{2}")
