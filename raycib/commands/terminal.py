"""Tables in a terminal: as wide as it is, and as wide as they need where nobody looks."""

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raycib.report.text import plain

WIDEST = 400
"""Characters of a line in a file or a pipe, where nothing is folded."""


def console() -> Console:
    """What commands print to."""
    there = Console(highlight=False)
    return there if there.is_terminal else Console(highlight=False, width=WIDEST)


def table_of(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Texts in columns, which fold where the terminal is too narrow; short rows are filled up."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        filled = [one for one, _ in zip_longest(row, heads, fillvalue="")]
        table.add_row(*(Text(plain(one)) for one in filled))  # whoever wrote it, it does nothing
    return table
