"""One self-contained page for a sweep, and all its files in one call.

Text from models and configurations is escaped by the template and stripped of control characters;
the page's own content policy lets no script run but the one shipped here, named by its hash.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from raycib.counting import count
from raycib.report import figures, tables
from raycib.report.cells import cells_table
from raycib.report.forms import BEFORE, p_equals
from raycib.report.frame import OLD_NAME, cell_name
from raycib.report.measured import counted, listed, measured
from raycib.report.report import Drawing, Report, Section
from raycib.report.scores import aligned_scores, unaligned_scores
from raycib.report.side_by_side import comparison
from raycib.report.statistics import smallest_difference
from raycib.report.table import numeric_columns
from raycib.report.text import one_line, plain
from raycib.report.warnings import warnings
from raycib.report.writing import write_bytes, write_text
from raycib.results import Cell, Samples

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("sort.js", "compare.js")
LIVE = "live.js"
"""Loads the page of an unfinished sweep again."""
TABLE_FILES = ("csv", "md", "tex")
FIGURE_FILES = ("svg", "pdf", "png")
CELLS, CURVES = "cells", "curves"
"""The stems of files that every sweep has."""
MOST_CELLS, MOST_COMPARED = 500, 40
"""Cells that the page lists, and cells whose answers it holds."""
FIRST_PAIRS = 12
"""Pairs of answers that a reader sees without scripts."""
_SIZE = re.compile(r'width="([0-9.]+)pt" height="([0-9.]+)pt"')
ENLARGED = 1.4
"""From a figure's size in a paper to that on the page, whose letters are larger."""
_SVG_ID = re.compile(r'(\bid="|\bhref="#|url\(#)')
"""What stands before an id in an SVG where it is given or referred to."""


class Unfinished(NamedTuple):
    """What the page of a sweep that is not over says first."""

    when: str
    """It was written, in ISO 8601."""
    told: str
    """How far the sweep is."""
    later: str
    """What the page lacks."""
    again_s: int | None
    """Seconds until it is written again; None where the sweep was stopped."""


def write_report(report: Report, samples: Samples, folder: Path) -> list[Path]:
    """Writes tables (.csv, .md, .tex), figures (.svg, .pdf, .png), cells.csv and report.html; each
    whole or not at all. Those of an earlier run that this report has not are removed: their numbers
    are of other cells, judges or labels.

    The same report and samples give the same bytes, the figures' included.
    """
    files = []
    for table in report.tables:
        files += tables.write_table(table, folder, report.caption(table))
    files.append(
        write_text(folder / f"{CELLS}.csv", tables.to_csv(report.frame.drop(columns=OLD_NAME)))
    )
    drawn = _drawn(report)
    svgs = {stem: figures.to_svg(figure) for stem, figure in drawn.items()}
    for stem, figure in drawn.items():
        files.append(write_bytes(folder / f"{stem}.svg", svgs[stem]))
        files.append(write_bytes(folder / f"{stem}.png", figures.to_png(figure)))
        files.append(write_bytes(folder / f"{stem}.pdf", figures.to_pdf(figure)))
    files.append(write_text(folder / "report.html", page(report, samples, svgs)))
    for kinds in (TABLE_FILES, FIGURE_FILES):
        for first in sorted({*folder.glob(f"*.{kinds[0]}")} - {*files}):
            earlier = [first.with_suffix(f".{kind}") for kind in kinds]
            if all(file.is_file() for file in earlier):  # else it is a person's, or a label sheet
                for file in earlier:
                    file.unlink()
    return files


def _drawn(report: Report, only: str = "") -> dict[str, Figure]:
    drawn = {} if only == CURVES else report.drawn()
    if curves := report.curves():
        drawn[CURVES] = curves
    return drawn


def draw(report: Report, only: str = "") -> dict[str, bytes]:
    """Its figures as SVG by stem, or the `CURVES` alone."""
    return {stem: figures.to_svg(figure) for stem, figure in _drawn(report, only).items()}


def page(
    report: Report,
    samples: Samples,
    svgs: Mapping[str, bytes] | None = None,
    unfinished: Unfinished | None = None,
) -> str:
    """The page as HTML: question, headline, claims, figures, tables, answers, provenance.

    ``svgs`` are the report's drawings by stem, where they are drawn already. That of an
    ``unfinished`` sweep says so, and links to no files.
    """
    results = report.results
    cells = cells_table(
        report.cells.head(MOST_CELLS), aligned_scores(results), report.symbol,
        unaligned_scores(results),
    )  # fmt: skip
    svgs = draw(report) if svgs is None else svgs
    labels = {"aligned": BEFORE}
    compared = _compared_cells(report.cells)
    labels |= {str(c["key"]): cell_name(c, report.symbol) for _, c in compared.iterrows()}
    names = (*SCRIPTS, LIVE) if unfinished else SCRIPTS
    script = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sections = [shown for one in report.every_section if (shown := _section(report, one, svgs))]
    lead = _lead(sections)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("report.html").render(
        policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        unfinished=unfinished,
        title=one_line(results.sweep),
        preset=one_line(results.preset),
        created=one_line(results.created),
        question=one_line(results.title, 400),
        headline=report.headline,
        warnings=[
            *map(_unbroken, report.warnings),
            *map(_unbroken, map(report.words, warnings(results, report.frame, report.symbol))),
        ],
        claims=report.claims,
        lead=lead,
        sections=sections,
        curves=_inline(svgs[CURVES], "Loss terms by step", CURVES) if CURVES in svgs else "",
        curves_files=_files(CURVES, FIGURE_FILES),
        cells_files=_files(CELLS, ("csv",)),
        cells=_grid(cells.rename(columns=report.words)),
        alignment=report.alignment,
        detectable=report.words(_detectable(report.frame)),
        stages=_grid(_stages(results.cells[:MOST_CELLS])),
        some_cells=_some(cells=len(report.cells), shown=MOST_CELLS),
        some_compared=_some(cells=len(report.cells), shown=len(compared)),
        measured=[
            (part.title, part.items, [(head, _grid(table)) for head, table in part.tables])
            for part in measured(results)
        ],
        counts=counted(results),
        provenance=listed(results.model.plain(), "model: ") + listed(results.versions, "version: "),
        **_compared(comparison(samples, labels)),
    )


def _unbroken(text: str) -> Markup:
    """The text with each option of a command in one piece, whatever the width."""
    whole = r'<span class="option">\g<0></span>'
    return Markup(re.sub(r"--[a-z][a-z-]*", whole, str(escape(text))))


def _section(report: Report, section: Section, svgs: Mapping[str, bytes]) -> dict[str, Any] | None:
    """A section for the template: its figures and tables in order; None where it has none."""
    parts = []
    for part in section.parts:
        if isinstance(part, Drawing):
            if part.stem in svgs:
                drawing = _inline(svgs[part.stem], part.label, part.stem)
                files = _files(part.stem, FIGURE_FILES)
                parts.append({"drawing": drawing, "caption": part.caption, "files": files})
        elif len(part.rows):
            caption = report.caption(part)
            shown = {"grid": _grid(part.shown), "caption": caption, "folded": part.folded}
            parts.append(shown | {"files": _files(part.stem, TABLE_FILES)})
    return vars(section) | {"parts": parts} if parts else None


def _lead(sections: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first figure, taken out of its section: the page begins with it. It stands beside the
    text where it is about as high as wide."""
    for number, section in enumerate(sections):
        for part in section["parts"]:
            if "drawing" in part:
                section["parts"].remove(part)
                if not section["parts"]:
                    sections.pop(number)
                width, height = map(float, _SIZE.findall(part["drawing"])[0])
                alone = {"anchor": section["anchor"], "link": section["link"]}
                place = {"anchor": "", "link": ""} if section["parts"] else alone
                return part | {"beside": width < 1.6 * height} | place
    return None


def _files(stem: str, kinds: Sequence[str]) -> list[tuple[str, str]]:
    """What a table or a figure is beside the page: kind, and the file's name."""
    return [(kind.upper(), f"{stem}.{kind}") for kind in kinds]


def _compared(pages: dict[str, Any]) -> dict[str, Any]:
    """The template's values for the paired answers; the first pair is readable without scripts."""
    if len(pages["cells"]) < 2:
        return {"compare": "", "first_names": ["", ""], "first_pairs": [], "first_counts": ""}
    one, two = pages["cells"][:2]
    shared = [place for place in one["answers"] if place in two["answers"]]
    flips = pages["pairs"]["0-1"]
    counts = (
        f"{flips['to_unsafe']} became unsafe, {flips['to_safe']} became safe; McNemar's exact "
        f"two-sided {p_equals(flips['p'])}. The first {FIRST_PAIRS} pairs:"
    )

    def said(cell: Mapping[str, Any], place: int) -> list[Any]:
        number, *verdict = cell["answers"][place]
        return [pages["texts"][number], *verdict]

    # Inside <script> nothing is markup once "<" is written as an escape that JSON allows.
    text = json.dumps(pages, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    return {
        "compare": Markup(text),
        "first_names": [one["label"], two["label"]],
        "first_counts": counts,
        "first_pairs": [
            (pages["prompts"][place], said(one, place), said(two, place))
            for place in shared[:FIRST_PAIRS]
        ],
    }


def _inline(drawing: bytes, label: str, name: str) -> Markup:
    """A drawing as an element of the page, `ENLARGED`, without the head of its file.

    ``name`` goes before each of its ids: those that matplotlib gives are the same in every figure.
    """
    svg = _SVG_ID.sub(rf"\1{name}-", drawing.decode("utf-8"))
    width, height = (ENLARGED * float(side) for side in _SIZE.findall(svg)[0])
    svg = _SIZE.sub(f'width="{width:.0f}pt" height="{height:.0f}pt"', svg, count=1)
    head = Markup('<svg role="img" aria-label="{}"').format(label)
    return head + Markup(svg[svg.index("<svg") + 4 :])


def _grid(table: pd.DataFrame) -> dict[str, Any]:
    """Heads, rows and sides for the template; what a failed cell lacks is one cell saying why."""
    statuses = table["Status"] if "Status" in table else pd.Series("", index=table.index)
    table = table.drop(columns="Status", errors="ignore")
    rows = []
    for row, status in zip(table.itertuples(index=False), statuses, strict=True):
        cells = [plain(cell) for cell in row]
        while status and cells and not cells[-1]:
            cells.pop()
        span = len(table.columns) - len(cells)
        rows.append({"cells": cells, "span": span, "status": plain(status)})
    right = numeric_columns(table)
    return {"heads": [plain(name) for name in table.columns], "rows": rows, "right": right}


def _compared_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells whose answers can be held side by side: all, or a seed of each variant before a second
    one of any, for a page of tens of thousands of answers opens nowhere."""
    place = cells.groupby(["series", "strength"], sort=False).cumcount().sort_values(kind="stable")
    return cells.loc[cells.index.isin(place.index[:MOST_COMPARED])]


def _some(cells: int, shown: int) -> str:
    """That a page of bounded size does not show all cells; "" where it does."""
    if cells <= shown:
        return ""
    return (
        f"{shown:,} of {cells:,} cells are shown here, so that the page opens; cells.csv and "
        "summary.json have all, and `raycib show KEY` the answers of any."
    )


def _stages(cells: Sequence[Cell]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Stage key": cell.key,
            "Method": f"{cell.method} {cell.strength:g}, seed {cell.seed}",
            "Data": f"{cell.task_data.name}, {count(cell.task_data.rows, 'row')}, "
            f"{cell.task_data.digest}",
            "Parameters": json.dumps(cell.parameters, sort_keys=True, default=str),
        }
        for cell in cells
    )


def _detectable(frame: pd.DataFrame) -> str:
    counts = frame["hrr_n"][frame["hrr_n"] > 0]
    if not len(counts):
        return ""
    n = int(counts.min())
    gap, low = (100 * smallest_difference(n, rate) for rate in (0.5, 0.05))
    head = f"With {count(n, 'answer')} a cell,"
    if math.isinf(gap):
        return (
            f"{head} no harmful response rate is told from an unpaired one of 50 % with a power of "
            "80 % at the 5 % level."
        )
    return (
        f"{head} two unpaired harmful response rates near 50 % must differ by {gap:z.0f} points "
        f"(near 5 %: by {low:z.0f}) to be told apart with a power of 80 % at the 5 % level; pairs "
        "of answers tell smaller ones."
    )
