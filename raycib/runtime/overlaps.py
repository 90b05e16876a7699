"""Prompts that two sets share: nothing that is asked may be trained on."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from raycib.counting import count
from raycib.data.origins import origin
from raycib.data.rows import Row, load_rows, question
from raycib.errors import UserError
from raycib.runtime.own import Sources

HIDDEN = "--harmful-data"
"""Whose prompts no set that is asked may share, whoever made it."""


class Named(NamedTuple):
    """A set of rows and what a person knows it by."""

    name: str
    source: str


def refuse_overlaps(
    sources: Sources, rows: Callable[[str], Sequence[Row]] = load_rows
) -> list[str]:
    """Counts, in words, of held-out rows that something else is trained on.

    `UserError` where harmful or harmless prompts or probes are trained on, or where a harmful
    prompt is a harmless one, or a task's, as well. Prompts are compared whatever their case, white
    space and form of characters. Sets of a preset are compared only with a person's own, but for
    harmful rows that are hidden among a task's.
    """
    safety = {"--safety": sources.safety, "--alignment": sources.alignment}
    safety[HIDDEN] = sources.harmful_data
    aside = [Named(name, source) for name, source in safety.items() if source]
    tasks = [Named(f"task {name}", task.train) for name, task in sources.tasks.items()]
    held_out = [Named(f"held-out {n}", task.held_out) for n, task in sources.tasks.items()]
    others = [Named(f"harmful prompts {n}", source) for n, source in sources.other_harmful.items()]
    harmful = [Named("harmful prompts", sources.harmful), *others]
    probes = [Named(f"probe {name}", source) for name, source in sources.probes.items()]
    benign = [Named("harmless prompts", sources.benign)] if sources.benign else []
    read: dict[str, Mapping[str, int]] = {}

    def shared(one: Named, other: Named) -> tuple[int, int, str]:
        """How many prompts of the second set are in the first, of how many, and where it starts."""
        published = all(origin(name.source).published for name in (one, other))
        if published and one.name != HIDDEN:
            return 0, 0, ""
        for source in (one.source, other.source):
            if source not in read:
                read[source] = _places(rows(source))
        mine, theirs = read[one.source], read[other.source]
        both = [prompt for prompt in theirs if prompt in mine]
        where = f"row {mine[both[0]]} is row {theirs[both[0]]}" if both else ""
        return len(both), len(theirs), where

    asked = [*harmful, *benign, *probes]
    pairs = [*product([*tasks, *aside], asked), *product([*benign, *held_out, *probes], harmful)]
    for one, other in pairs:
        same, total, where = shared(one, other)
        if same:
            trained = one not in (*benign, *held_out, *probes)
            why = "it would be trained on what is asked" if trained else "it cannot be both"
            raise UserError(
                f"{same} of {total} {other.name} ({other.source}) are also in {one.name} "
                f"({one.source}; {where}): {why}; take them out of one of the two"
            )
    notes = []
    for one, other in product([*tasks, *aside], held_out):
        if one.name.removeprefix("task ") != other.name.removeprefix("held-out "):
            same, total, _ = shared(one, other)
            if same:
                notes.append(f"{same} of {count(total, 'row')} of {other.name}: also in {one.name}")
    return notes


def _places(rows: Sequence[Row]) -> Mapping[str, int]:
    """The number, from 1, of the first row that asks each question."""
    found: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        found.setdefault(question(row), number)
    return found
