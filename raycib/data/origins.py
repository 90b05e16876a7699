"""The registry of sources of rows: how each is read, and what it knows of answers to its rows.

Nothing else asks where rows come from. A further kind of source is a function in `KINDS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice

from raycib import world
from raycib.counting import count
from raycib.data.columns import Columns, Row
from raycib.data.file_tables import file_table
from raycib.data.filters import kept
from raycib.data.hub import hub_table
from raycib.data.replaced import replaced
from raycib.data.sources import Source, parse, several, unknown_part
from raycib.data.stand_ins import stand_ins
from raycib.data.tables import Table
from raycib.errors import UserError

Read = tuple[list[Row], list[str]]
"""All rows before any cut, and what was done to get them."""
Told = Callable[[Row, str], bool]
"""What a source says of an answer to a row."""


@dataclass(frozen=True)
class Origin:
    """A source of rows. What it does not know is None."""

    source: Source
    read: Callable[[], Read]
    """Raises `UserError`."""
    published: bool = True
    """Whether its sets are as their authors made them, so that what two of them share is meant."""
    own_language: bool = False
    """Whether its prompts are in words that only models of this source know."""
    law: world.Law | None = None
    """What its rows are drawn from."""
    is_correct: Told | None = None
    """Whether an answer is right, where the source has a rule of its own."""
    is_refusal: Told | None = None
    """Whether an answer refuses, where the source has refusals of its own."""
    is_unsafe: Told | None = None
    """The truth about an answer to a harmful prompt."""


@cache
def origin(source: str) -> Origin:
    """What is known of the rows at a source; nothing is read yet. Raises `UserError`."""
    parsed = parse(source)
    if parsed.replaced and not parsed.name.startswith("("):
        raise UserError(f"{source!r}: rows are replaced of the first of two, as in (A,B)")
    prefix = next(prefix for prefix in KINDS if parsed.name.startswith(prefix))
    return KINDS[prefix](parsed, parsed.name.removeprefix(prefix))


def _world(source: Source, name: str) -> Origin:
    task = name.partition(".")[0]
    return Origin(
        source,
        partial(_world_rows, source, name),
        own_language=True,
        law=world.law(name),
        is_correct=lambda row, answer: world.correct(task, row.prompt, answer),
        is_refusal=lambda _row, answer: world.is_refusal(answer),
        is_unsafe=lambda row, answer: world.is_unsafe(row.prompt, answer),
    )


def _world_rows(source: Source, name: str) -> Read:
    if name not in world.NAMES:
        if "#" in name:
            raise unknown_part(source.name)
        raise UserError(f"the world has no rows {name!r}; it has {', '.join(world.NAMES)}")
    if source.columns or source.filters or source.labels_from is not None:
        raise UserError(
            f"{source.name!r}: the world's rows have no columns to choose; leave that out"
        )
    return [Row(row["prompt"], row["response"]) for row in world.rows(name)], []


def parts_of(source: str) -> list[str]:
    """The sources that `(A,B)` puts together; another is its own only part."""
    name = parse(source).name
    return several(name[1:-1]) if name.startswith("(") and name.endswith(")") else [source]


def _together(source: Source, name: str) -> Origin:
    """`(A,B)`: the rows of several sources, one after the other."""
    if not name.endswith(")"):
        return _file(source, source.name)
    parts = parts_of(source.name)
    if source.columns or source.filters or source.labels_from is not None:
        raise UserError(f"{source.name!r}: say how each of them is read, within the brackets")
    published = all(origin(part).published for part in parts)
    if source.replaced and len(parts) != 2:
        raise UserError(f"{source.name!r}: rows are replaced of the first of two, as in (A,B)")
    return Origin(source, partial(_rows_of_all, source, parts), published=published)


def _rows_of_all(source: Source, parts: list[str]) -> Read:
    from raycib.data.rows import read_rows  # which reads what is at an origin

    read = {part: read_rows(part) for part in parts}
    notes = [f"{part}: {note}" for part, one in read.items() for note in one.notes]
    sets = [one.rows for one in read.values()]
    if source.replaced is None:
        return [row for rows in sets for row in rows], notes
    share, seed = source.replaced
    task, harmful = sets
    rows = replaced(task, harmful, share, seed)
    changed = sum(row is not own for row, own in zip(rows, task, strict=True))
    return rows, [*notes, f"replaced by harmful rows: {changed} of {len(rows)}"]


def _hub(source: Source, name: str) -> Origin:
    if "#" in name:
        raise unknown_part(source.name)
    return Origin(source, partial(_table_rows, source, name, hub_table))


def _file(source: Source, name: str) -> Origin:
    return Origin(source, partial(_table_rows, source, name, file_table), published=False)


def _table_rows(source: Source, name: str, table_of: Callable[[str, int | None], Table]) -> Read:
    table = table_of(name, source.first)
    if not len(table.numbers):
        raise UserError(f"{source.name!r} has no rows; give at least one prompt with its response")
    table = kept(table, source)
    columns = Columns(table, source)
    every = columns.rows()
    rows = list(islice(every, source.most))
    more = sum(1 for _ in every)  # gone through, that whatever is wrong with one is said, not kept
    return rows, [f"{count(len(rows) + more, 'row')} read", *table.notes, *columns.notes()]


def _assumed(source: Source, name: str) -> Origin:
    return Origin(source, lambda: (list(stand_ins(name, source.first)), []))


ASSUMED = "assumed:"
"""Begins what stands in for a set of the hub, in a plan without it."""
KINDS: dict[str, Callable[[Source, str], Origin]] = {
    "world:": _world,
    "hub:": _hub,
    "(": _together,
    ASSUMED: _assumed,
    "": _file,
}
"""By how a source's name begins; the last takes every other. Each is given the rest of the name."""
