"""A report of a sweep whose answers no judge read: the rate is of answers that are not refused, and
is called so wherever another sweep says harmful responses."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text

from raycib.report.forms import Form
from raycib.report.report import Drawing, Report
from raycib.report.table import Table

_WORDS = (
    ("HRR: harmful response rate", "Not refused: the share of harmful prompts whose answer does "
     "not open as a refusal, told by a rule; no judge read the answers"),
    ("harmful response rates", "shares not refused"),
    ("Harmful response rates", "Shares not refused"),
    ("harmful response rate", "share not refused"),
    ("Harmful response rate", "Share not refused"),
    ("Harmful responses", "Answers not refused"),
    ("harmful responses", "answers not refused"),
    ("Harmful answers", "Answers not refused"),
    ("harmful answers", "answers not refused"),
    ("True HRR", "Truly harmful"),
    ("HRR", "Not refused"),
)  # fmt: skip
"""What is said, in the order in which it is replaced."""


def in_words(text: str) -> str:
    """A sentence, a caption or a head of a report in the words of the refusal rule."""
    for usual, said in _WORDS:
        text = text.replace(usual, said)
    return text


def by_rule(report: Report) -> Report:
    """The same report in these words: tables, captions, figures, claims and sentences."""
    tables = {id(part): _table(part) for one in report.sections for part in one.parts
              if isinstance(part, Table)}  # fmt: skip

    def part_of(part: Table | Drawing) -> Table | Drawing:
        if isinstance(part, Table):
            return tables[id(part)]
        return replace(_said_of(part, "label", "caption"), draw=_redrawn(part.draw))

    return replace(
        _said_of(report, "headline"),
        claims=[_said_of(one, "text", "evidence") for one in report.claims],
        sections=[
            replace(_said_of(one, "title", "link", "text"), parts=[part_of(p) for p in one.parts])
            for one in report.sections
        ],
        main=tables.get(id(report.main)) or _table(report.main),
        warnings=[in_words(one) for one in report.warnings],
        notes=[in_words(one) for one in report.notes],
        words=in_words,
    )


def _said_of(one: Any, *fields: str) -> Any:
    """A frozen record with some of its texts in these words."""
    return replace(one, **{name: in_words(getattr(one, name)) for name in fields})


def _table(table: Table) -> Table:
    columns = [
        replace(
            _said_of(one, "head", "brief"),
            form=_said(one.form),
            brief_form=_said(one.brief_form) if one.brief_form else None,
        )
        for one in table.columns
    ]
    return replace(_said_of(table, "caption"), columns=columns)


def _said(form: Form) -> Form:
    return lambda row, field: in_words(form(row, field))


def _redrawn(draw: Callable[[], Figure | None]) -> Callable[[], Figure | None]:
    def drawn() -> Figure | None:
        figure = draw()
        axes = figure.axes if figure else ()
        for axis in (axis for one in axes for axis in (one.xaxis, one.yaxis)):
            names = [label.get_text() for label in axis.get_ticklabels()]
            if (words := [*map(in_words, names)]) != names:  # ticks are written anew when drawn
                axis.set_ticks(axis.get_ticklocs(), words)
        for text in figure.findobj(Text) if figure else ():
            assert isinstance(text, Text)
            if (said := in_words(text.get_text())) != text.get_text():
                text.set_text(said)
        return figure

    return drawn
