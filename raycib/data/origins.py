"""The registry of sources of rows: how each is read, and what it knows of answers to its rows.

Nothing else asks where rows come from. A further kind of source is a class in `KINDS`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from raycib.data.columns import Columns, Row
from raycib.data.filters import kept
from raycib.data.sources import Source, parse, unknown_part
from raycib.data.tables import Table, file_table, hub_table
from raycib.errors import UserError

if TYPE_CHECKING:
    from raycib.world import Law


Told = Callable[[str, str], bool]
"""What a source says of a prompt and its answer."""


class Origin:
    """A source of one kind. What its kind does not know is None."""

    prefix: ClassVar[str] = ""
    """How its names begin."""
    published: ClassVar[bool] = True
    """Whether its sets are as their authors made them, so that what two of them share is meant."""
    own_language: ClassVar[bool] = False
    """Whether its prompts are in words that only models of this source know."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name = source.name.removeprefix(self.prefix)

    def read(self) -> tuple[list[Row], list[str]]:
        """All rows before any cut, and what was done to get them. Raises `UserError`."""
        table = self.table()
        if not table.entries:
            raise UserError(
                f"{self.source.name!r} has no rows; give at least one prompt with its response"
            )
        table = kept(table, self.source)
        columns = Columns(table, self.source)
        rows = list(columns.rows())
        return rows, [f"{len(rows)} rows read", *table.notes, *columns.notes()]

    def table(self) -> Table:
        """Its columns. Raises `UserError`."""
        raise NotImplementedError

    @property
    def law(self) -> "Law | None":
        """What its rows are drawn from."""
        return None

    @property
    def is_correct(self) -> Told | None:
        """Whether an answer to a prompt is right, where the source has a rule of its own."""
        return None

    @property
    def is_refusal(self) -> Told | None:
        """Whether an answer refuses, where the source has refusals of its own."""
        return None

    @property
    def is_unsafe(self) -> Told | None:
        """The truth about an answer to a harmful prompt."""
        return None


class World(Origin):
    """A set of the embedded world, which knows the truth about every answer."""

    prefix = "world:"
    own_language = True

    def read(self) -> tuple[list[Row], list[str]]:
        from raycib import world

        if self.name not in world.NAMES:
            if "#" in self.name:
                raise unknown_part(self.source.name)
            raise UserError(f"the world has no rows {self.name!r}; it has {', '.join(world.NAMES)}")
        if self.source.columns or self.source.filters or self.source.labels_from is not None:
            raise UserError(
                f"{self.source.name!r}: the world's rows have no columns to choose; leave that out"
            )
        return [Row(row["prompt"], row["response"]) for row in world.rows(self.name)], []

    @property
    def law(self) -> "Law | None":
        from raycib import world

        return world.law(self.name)

    @property
    def is_correct(self) -> Told:
        from raycib import world

        task = self.name.partition(".")[0]
        return lambda prompt, answer: world.correct(task, prompt, answer)

    @property
    def is_refusal(self) -> Told:
        from raycib import world

        return lambda _prompt, answer: world.is_refusal(answer)

    @property
    def is_unsafe(self) -> Told:
        from raycib import world

        return world.is_unsafe


class Hub(Origin):
    """A data set of the Hugging Face hub."""

    prefix = "hub:"

    def table(self) -> Table:
        if "#" in self.name:
            raise unknown_part(self.source.name)
        return hub_table(self.name)


class File(Origin):
    """A file of one's own."""

    published = False

    def table(self) -> Table:
        return file_table(self.name)


KINDS: tuple[type[Origin], ...] = (World, Hub, File)
"""The last takes every name that no other has."""


def origin(source: str) -> Origin:
    """What is known of the rows at a source; nothing is read yet. Raises `UserError`."""
    parsed = parse(source)
    return next(kind for kind in KINDS if parsed.name.startswith(kind.prefix))(parsed)
