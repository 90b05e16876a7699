"""What a study makes of a sweep, in the terms that page, files, terminal and tracking share.

A study is a file of its own, also outside of this package: a function from results, the answers
(``samples``) and the loss terms by step (``histories``) to a ``Report``. Nothing here, nor in the
page, knows which studies there are.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd
from matplotlib.figure import Figure

from raycib.metrics import METRICS
from raycib.report.benchmarks import benchmarks_table
from raycib.report.claims import Claim
from raycib.report.forms import rate
from raycib.report.scores import aligned_scores, flat_scores
from raycib.report.table import Table
from raycib.report.tables import to_terminal
from raycib.report.text import one_line
from raycib.results import Results


@dataclass(frozen=True)
class Drawing:
    """A figure, drawn when it is written; None where there is nothing to draw."""

    stem: str
    draw: Callable[[], Figure | None]
    label: str
    """What it is, for those who cannot see it."""
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page; left out where nothing in it has anything to show."""

    anchor: str
    title: str
    link: str
    """Its name in the page's list of links."""
    parts: Sequence[Table | Drawing]
    text: str = ""


@dataclass(frozen=True)
class Report:
    """Tables, figures, claims and warnings of one sweep, and its result in a paragraph."""

    results: Results
    frame: pd.DataFrame
    """All cells."""
    headline: str
    claims: Sequence[Claim]
    sections: Sequence[Section]
    main: Table
    """The table for the terminal; its caption says how answers to one's own tasks were scored."""
    cells: pd.DataFrame
    """The cells that the page shows one by one, in order."""
    warnings: Sequence[str] = ()
    """The study's own; those that any sweep calls for follow."""
    curves: Callable[[], Figure | None] = lambda: None
    """Loss terms by step."""
    symbol: str = "Strength"
    """What a strength is called at the head of a column."""
    notes: Sequence[str] = ()
    """Lines below the terminal's table."""
    words: Callable[[str], str] = str
    """How the page says what any sweep's says; `str`: as it is (`raycib.report.not_refused`)."""

    def with_section(
        self, section: Section, warnings: Iterable[str] = (), notes: Iterable[str] = ()
    ) -> "Report":
        """The same with one more section, and what it warns of and notes."""
        return replace(
            self,
            sections=[*self.sections, section],
            warnings=[*self.warnings, *warnings],
            notes=[*self.notes, *notes],
        )

    @cached_property
    def benchmarks(self) -> Table | None:
        """lm-eval's, where some were asked for."""
        return benchmarks_table(self.frame, aligned_scores(self.results))

    @property
    def every_section(self) -> list[Section]:
        """The study's, and what any sweep may have."""
        if self.benchmarks is None:
            return [*self.sections]
        return [
            *self.sections,
            Section("benchmarks", "Benchmarks", "Benchmarks", [self.benchmarks]),
        ]

    @property
    def tables(self) -> list[Table]:
        """Those that have something to show, in the order of the page."""
        parts = [part for section in self.every_section for part in section.parts]
        return [part for part in parts if isinstance(part, Table) and len(part.rows)]

    def drawn(self) -> dict[str, Figure]:
        """Its figures by the stems of their files, in the order of the page."""
        parts = [part for section in self.sections for part in section.parts]
        found = {part.stem: part.draw() for part in parts if isinstance(part, Drawing)}
        return {stem: figure for stem, figure in found.items() if figure}

    def caption(self, table: Table) -> str:
        """The caption of one of ``tables``."""
        return f"{table.caption} {self._scored}".strip() if table is self.main else table.caption

    def terminal(self, width: int | None = None) -> str:
        """The main table as plain text, no broader than ``width``, the failed cells below it, and
        what else is to be said."""
        table = [to_terminal(self.main.brief, width), *self.main.failures]
        table += ["", to_terminal(self.benchmarks.brief, width)] if self.benchmarks else []
        lines = [*table, *self.notes, self.alignment, self._scored]
        return "\n".join(filter(None, lines))

    @property
    def alignment(self) -> str:
        """How safe the base was and the aligned model is, where the sweep aligned it; else ""."""
        base = self.results.unaligned
        if base is None or base.scores is None:
            return ""
        models = {
            "before alignment": flat_scores(base.scores),
            "aligned": aligned_scores(self.results),
        }
        told = {
            name: ", ".join(
                f"{METRICS[one].title} {text}"
                for one in ("hrr", "refusal_rate", "over_refusal")
                if (text := rate(scores, one))
            )
            for name, scores in models.items()
        }
        what = one_line(base.name)
        parts = "; ".join(f"{name}: {text}" for name, text in told.items())
        return self.words(f"{what}, in %, {parts}.")

    @property
    def _scored(self) -> str:
        """How the answers to each set were scored, where a summary says so."""
        parts = [
            f"{one.name}: {one.value}"
            for one in self.results.settings
            if one.name.startswith("accuracy of ")
        ]
        return one_line("Scored, " + ", ".join(parts) + ".", 2000) if parts else ""
