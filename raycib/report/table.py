"""The one model of a table: rows of numbers, and the columns that people see of them.

Files, page and terminal are made of it by the same code. A study declares its columns:

>>> from raycib.report.forms import mean
>>> rows = pd.DataFrame([{"method": "cib", "seeds": 2, "hrr_mean": 0.206, "hrr_std": 0.025}])
>>> columns = [Column("method", "Method"), Column("hrr", "HRR, %", mean(100, 1))]
>>> shown(rows, columns).to_dict("records")
[{'Method': 'cib', 'HRR, %': '20.6 ± 2.5'}]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from raycib.report.forms import NOT_MEASURED, Form, said
from raycib.report.text import one_line


@dataclass(frozen=True)
class Column:
    """What people see of one field of a table's rows."""

    field: str
    """A field's name, or that of a measure, of which there are ``_mean``, ``_low`` and so on."""
    head: str
    """With the unit; "" where only the brief form has it."""
    form: Form = said
    brief: str = ""
    """The head in the brief form; "" where that lacks the column."""
    brief_form: Form | None = None
    """The brief form's own way to say it."""
    optional: bool = False
    """Left out where no row has a value."""


STATUS = Column("status", "Status", optional=True)
"""Why a row's cell failed."""


@dataclass(frozen=True)
class Table:
    """Rows as numbers (.csv), for people (.md, page) and, where its columns say how, in a brief
    form for paper (.tex) and terminal."""

    stem: str
    rows: pd.DataFrame
    columns: Sequence[Column]
    caption: str = ""
    key: Sequence[str] = ()
    """The fields that name a row: those of its failed cells are the same."""
    folded: str = ""
    """What a reader clicks on to see it; "" where it stands open on the page."""
    people: pd.DataFrame | None = None
    """What the columns are of, where people see other rows than programs."""

    @property
    def shown(self) -> pd.DataFrame:
        """The table for people, as text."""
        return shown(self.rows if self.people is None else self.people, self.columns)

    @property
    def brief(self) -> pd.DataFrame:
        """The table for paper and terminal; failed cells have no row, if another has their key."""
        if not any(column.brief for column in self.columns):
            return self.shown
        return shown(self.rows.drop_duplicates(list(self.key)), self.columns, brief=True)

    @property
    def failures(self) -> list[str]:
        """The failed cells that ``brief`` says nothing of, each in a line with its reason."""
        failed = self.rows[self.rows["status"] != ""].to_dict("records") if self.key else []
        return [one_line(f"{self._name(row)}: {row['status']}") for row in failed]

    def _name(self, row: Mapping[Any, Any]) -> str:
        parts = [f"strength {row[k]:g}" if k == "strength" else str(row[k]) for k in self.key]
        return ", ".join(filter(None, parts))


def shown(rows: pd.DataFrame, columns: Sequence[Column], brief: bool = False) -> pd.DataFrame:
    """``rows`` as text in the order of ``columns``, or of those that the brief form has."""
    kept = [
        column
        for column in columns
        if (column.brief if brief else column.head)
        and not (column.optional and not has(rows, column.field))
    ]
    forms = [(brief and column.brief_form) or column.form for column in kept]
    cells = [
        [form(row, column.field) for form, column in zip(forms, kept, strict=True)]
        for row in records(rows)
    ]
    heads = [column.brief if brief else column.head for column in kept]
    return pd.DataFrame(cells, columns=heads, dtype=object)


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as mappings."""
    return [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]


def has(rows: pd.DataFrame, field: str) -> bool:
    """Whether some row has a value of a field, or a mean of a measure."""
    name = f"{field}_mean" if f"{field}_mean" in rows else field
    return name in rows and bool((rows[name].notna() & (rows[name] != "")).any())


def numeric_columns(table: pd.DataFrame) -> list[bool]:
    """Whether each column's cells look like numbers, so that they stand to the right."""
    numeric = "0123456789.,-+±<[]% of\u00a0"
    return [
        all(set(str(value).replace(NOT_MEASURED, "")) <= set(numeric) for value in cells)
        for _, cells in table.items()
    ]


def naming(table: pd.DataFrame) -> int:
    """How many columns, from the first, tell rows apart; one, where all of three do not."""
    for count in (1, 2, 3):
        if not table.iloc[:, :count].duplicated().any():
            return count
    return 1
