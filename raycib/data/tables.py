"""A table: named columns, one entry a row, each with the place where it stands."""

import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from raycib.errors import UserError

UNNAMED = ""
"""What a column without a name is called, such as the index that pandas writes."""


class Number(str):
    """A number of a JSON file as it is written there: 3.10 stays 3.10."""

    __slots__ = ()


class Entries:
    """What a file holds, read anew each time that one goes through it."""

    def __init__(self, read: Callable[[], Iterator[Any]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[Any]:
        return self._read()


class Table(NamedTuple):
    """Entries by column name, and where each stands."""

    where: str
    entries: Iterable[dict[str, Any]]
    """May be gone through again."""
    names: Mapping[str, None]
    """All columns, in the order in which they come."""
    numbers: Sequence[int]
    """The row of each in the file, from 1."""
    lines: Sequence[int] = ()
    """The line on which each begins, where the file has lines."""
    notes: tuple[str, ...] = ()
    """What reading it left out, in words."""

    def place(self, index: int) -> str:
        """Where an entry is, for people."""
        line = f" (line {self.lines[index]})" if self.lines else ""
        return f"{self.where}, row {self.numbers[index]}{line}"


def checked(where: str, entries: Iterable[Any], lines: Sequence[int] = ()) -> Table:
    """The table of these entries; `UserError` for one that has no named columns."""
    names: dict[str, None] = {}
    count = 0
    for count, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            place = Table(where, (), {}, range(1, count + 1), lines).place(count - 1)
            one_list = lines and count == 1 and isinstance(entry, list)
            mend = "; name it .json if it is one list of rows" if one_list else ""
            raise UserError(f"{place}: found {shown(entry)}, not named columns{mend}")
        names.update(dict.fromkeys(entry))
    return Table(where, entries, names, range(1, count + 1), lines)


def named_once(names: list[str], where: str) -> list[str]:
    for name, times in Counter(names).items():
        if name != UNNAMED and times > 1:
            raise UserError(f"{where} has two columns {shown(name)}; rename or remove one")
    return names


def shown(value: Any) -> str:
    """A value in a few characters for a message, however large or deep it is."""
    return value[:30] if isinstance(value, Number) else reprlib.repr(value)


def listed(names: Iterable[str]) -> str:
    """Names of columns for people: a dozen at most, each in characters that any terminal prints."""
    names = sorted(names)
    parts = ["(no name)" if name == UNNAMED else ascii(name[:40]) for name in names[:12]]
    return ", ".join(parts) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
