"""A report in other words: what any of its texts says is replaced, and no number."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text

from raycib.report.forms import Form
from raycib.report.report import Drawing, Report
from raycib.report.table import Table

Words = Callable[[str], str]
"""A text in other words."""


def reworded(report: Report, words: Words) -> Report:
    """The same report with tables, captions, figures, claims and sentences in other words."""
    tables = {id(part): _table(words, part) for one in report.sections for part in one.parts
              if isinstance(part, Table)}  # fmt: skip

    def part_of(part: Table | Drawing) -> Table | Drawing:
        if isinstance(part, Table):
            return tables[id(part)]
        return replace(_said_of(words, part, "label", "caption"), draw=_redrawn(words, part.draw))

    return replace(
        _said_of(words, report, "headline"),
        claims=[_said_of(words, one, "text", "evidence") for one in report.claims],
        sections=[
            replace(
                _said_of(words, one, "title", "link", "text"), parts=[part_of(p) for p in one.parts]
            )
            for one in report.sections
        ],
        main=tables.get(id(report.main)) or _table(words, report.main),
        warnings=[words(one) for one in report.warnings],
        notes=[words(one) for one in report.notes],
        curves=_redrawn(words, report.curves),
        words=lambda text: words(report.words(text)),
    )


def _said_of(words: Words, one: Any, *fields: str) -> Any:
    """A frozen record with some of its texts in other words."""
    return replace(one, **{name: words(getattr(one, name)) for name in fields})


def _table(words: Words, table: Table) -> Table:
    columns = [
        replace(
            _said_of(words, one, "head", "brief"),
            form=_said(words, one.form),
            brief_form=_said(words, one.brief_form) if one.brief_form else None,
        )
        for one in table.columns
    ]
    return replace(_said_of(words, table, "caption"), columns=columns)


def _said(words: Words, form: Form) -> Form:
    return lambda row, field: words(form(row, field))


def _redrawn(words: Words, draw: Callable[[], Figure | None]) -> Callable[[], Figure | None]:
    def drawn() -> Figure | None:
        figure = draw()
        axes = figure.axes if figure else ()
        for axis in (axis for one in axes for axis in (one.xaxis, one.yaxis)):
            names = [label.get_text() for label in axis.get_ticklabels()]
            if (other := [*map(words, names)]) != names:  # ticks are written anew when drawn
                axis.set_ticks(axis.get_ticklocs(), other)
        for text in figure.findobj(Text) if figure else ():
            assert isinstance(text, Text)
            if (said := words(text.get_text())) != text.get_text():
                text.set_text(said)
        return figure

    return drawn
