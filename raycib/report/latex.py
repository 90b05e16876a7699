"""Tables for a paper of two columns: what fits one column stands in it, what is wider goes over
both, and what is wider still is split into parts that begin with the same columns.

Widths are those of Computer Modern at `\\footnotesize`, the widest of the usual fonts; heads and
texts are broken where that makes a column narrower.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from raycib.report.table import naming, numeric_columns
from raycib.report.text import one_line, plain

COLUMN_PT, PAGE_PT = 234.0, 487.0
"""ICML's: the narrowest of the usual papers' with two columns, which others' are wider than."""
BETWEEN_PT = 6.0
"""Between two columns of a table."""
FONT_PT = 8.0
LINES = 46
"""Of a table that a page has room for, with its caption."""
COMFORT_PT = 56.0
"""Words are not broken into narrower columns than this, unless all of them are short."""
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "–": "--", "…": r"\ldots{}", "\u00a0": "~",
    "²": r"\textsuperscript{2}", "³": r"\textsuperscript{3}", "─": "--", "\ufffd": "?",
    "|": r"\textbar{}",
}  # fmt: skip
_MATHS = {
    "±": r"\pm", "−": "-", "×": r"\times", "·": r"\cdot", "≤": r"\le", "≥": r"\ge", "≈": r"\approx",
    "→": r"\to", "↑": r"\uparrow", "∞": r"\infty", "‖": r"\|", "ᵀ": r"^{\top}", "√": r"\surd",
    "✓": r"\surd", "✗": r"\times", "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta",
    "ε": r"\varepsilon", "η": r"\eta", "θ": r"\theta", "λ": r"\lambda", "μ": r"\mu", "ρ": r"\rho",
    "σ": r"\sigma", "τ": r"\tau", "φ": r"\varphi", "ω": r"\omega", "Δ": r"\Delta", "Σ": r"\Sigma",
}  # fmt: skip
_HAT = re.compile("(.)\u0302")
_EM = {
    **dict.fromkeys("ijl.,;:'|!", 0.31),
    **dict.fromkeys(" -I", 0.37),
    **dict.fromkeys("ftrs()[]", 0.42),
    **dict.fromkeys("0123456789acez", 0.535),
    **dict.fromkeys("mw%±→×≤≥", 0.89),
    "\u0302": 0.0,
}
"""Widths in the font's size; capitals have 0.78, all else 0.56."""


def latex(text: object) -> str:
    """One line of text with every character that is special to LaTeX escaped."""
    hats = _HAT.split(one_line(text))  # what stands before, the letter below a hat, and so on
    parts = [_escaped(hats[0])]
    for letter, after in zip(hats[1::2], hats[2::2], strict=True):
        parts += [rf"$\hat{{{_MATHS.get(letter, letter)}}}$", _escaped(after)]
    return "".join(parts)


def _escaped(text: str) -> str:
    return "".join(f"${_MATHS[c]}$" if c in _MATHS else _SPECIAL.get(c, c) for c in text)


def latex_caption(caption: str) -> str:
    """A caption of any length, escaped."""
    return " ".join(latex(word) for word in plain(caption).split())


def to_latex(table: pd.DataFrame, caption: str = "") -> str:
    """A booktabs table (``\\usepackage{booktabs}``) with everything special escaped; of
    several floats the first has the caption."""
    columns = [
        _column(str(head), [*map(one_line, cells)], number)
        for (head, cells), number in zip(table.items(), numeric_columns(table), strict=True)
    ]
    narrow = _width(columns) <= COLUMN_PT
    room, kind = (COLUMN_PT, "table") if narrow else (PAGE_PT, "table*")
    parts = [_spread(part, room) for part in _parts(columns, naming(table), room)]
    floats: list[list[str]] = []
    lines = LINES
    for tabular, height in (one for part in parts for one in _tabulars(part)):
        if lines + height > LINES:
            floats.append([])
            lines = 0
        floats[-1].append(tabular)
        lines += height
    return "".join(
        "\n".join(
            [rf"\begin{{{kind}}}", r"\centering", r"\footnotesize", r"\setlength{\tabcolsep}{3pt}"]
            + ([r"(continued)\\[3pt]"] if number else [])
            + ["\n\\par\\smallskip\n".join(one)]
            + [rf"\caption{{{latex_caption(caption)}}}"] * bool(caption and not number)
            + [rf"\end{{{kind}}}", ""]
        )
        for number, one in enumerate(floats)
    )


@dataclass(frozen=True)
class _Column:
    head: str
    cells: Sequence[str]
    number: bool
    least: float
    """In pt."""
    most: float


def _column(head: str, cells: Sequence[str], number: bool) -> _Column:
    words = max(map(_pt, head.split()), default=0.0)
    whole = max(map(_pt, cells), default=0.0)
    if number:
        least = max(words, whole)
        return _Column(head, cells, number, least, max(least, _pt(head) / 2 + words / 2))
    longest = max((_pt(word) for cell in cells for word in cell.split()), default=0.0)
    least = max(words, longest, min(whole, COMFORT_PT))
    return _Column(head, cells, number, least, max(least, whole))


def _pt(text: str) -> float:
    return FONT_PT * sum(_EM.get(c, 0.78 if c.isupper() else 0.56) for c in text)


def _width(columns: Sequence[_Column]) -> float:
    return sum(one.least for one in columns) + BETWEEN_PT * (len(columns) - 1)


def _parts(columns: Sequence[_Column], naming: int, room: float) -> list[list[_Column]]:
    """Columns that fit beside one another; those that name a row begin every part."""
    names, parts = list(columns[:naming]), [list(columns[:naming])]
    for column in columns[naming:]:
        if len(parts[-1]) > naming and _width([*parts[-1], column]) > room:
            parts.append([*names])
        parts[-1].append(column)
    return parts


def _spread(columns: Sequence[_Column], room: float) -> list[tuple[_Column, float]]:
    """Columns with their widths: what room is left goes to those that want more."""
    left = max(0.0, room - _width(columns))
    wanted = sum(one.most - one.least for one in columns)
    share = min(1.0, left / wanted) if wanted else 0.0
    return [(one, one.least + share * (one.most - one.least)) for one in columns]


def _tabulars(part: Sequence[tuple[_Column, float]]) -> Iterator[tuple[str, int]]:
    """The part's rows in tabulars that a page has room for, each with how many lines it has."""
    heads = [_wrapped(column.head, width) for column, width in part]
    grid = [[_wrapped(text, width) for text in column.cells] for column, width in part]
    shape = "".join("r" if column.number else "l" for column, _ in part)
    beginning = [rf"\begin{{tabular}}{{@{{}}{shape}@{{}}}}", r"\toprule"]
    beginning += [" & ".join(map(_stacked, heads, shape, "b" * len(shape))) + r" \\", r"\midrule"]
    above = max(map(len, heads)) + 1
    rows, lines = [], above
    for row in zip(*grid, strict=True):
        height = max(map(len, row))
        if rows and lines + height > LINES:
            yield "\n".join([*beginning, *rows, r"\bottomrule", r"\end{tabular}"]), lines
            rows, lines = [], above
        rows.append(" & ".join(map(_stacked, row, shape, "t" * len(shape))) + r" \\")
        lines += height
    yield "\n".join([*beginning, *rows, r"\bottomrule", r"\end{tabular}"]), lines


def _wrapped(text: str, width: float) -> list[str]:
    """Lines of words, none wider than `width` but single words."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _pt(longer) > width + 0.01:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _stacked(lines: Sequence[str], side: str, place: str) -> str:
    """Lines above one another in a cell."""
    # LaTeX takes a bracket or a star after the end of a line for an option of it.
    shown = ["{}" * line.startswith(("[", "*")) + latex(line) for line in lines]
    if len(lines) == 1:
        return shown[0]
    rows = r"\\ ".join(shown)
    return rf"\begin{{tabular}}[{place}]{{@{{}}{side}@{{}}}}{rows}\end{{tabular}}"
