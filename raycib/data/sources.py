"""What a source of rows says: where they are, how to read them, and which of them are meant."""

import fnmatch
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raycib.errors import UserError
from raycib.metrics import ENDS

ROLES = ("prompt", "context", "response", "system")
PARTS = (
    "#train, #held-out, #first-N, #every-N, #prompt=COLUMN (or context, response, system), "
    "#only=COLUMN:VALUE, #without=COLUMN:VALUE, #labels-from=0, #scorer=NAME or, after (A,B), "
    "#replaced=SHARE@SEED"
)
_CUT = re.compile(r"train|held-out|(first|every)-[1-9][0-9]{0,17}")
_COLUMN = re.compile(rf"({'|'.join(ROLES)})=(.*)", re.DOTALL)
_FILTER = re.compile(r"(only|without)=([^:]+):(.+)", re.DOTALL)
_LABELS = re.compile(r"labels-from=([01])")
_SCORER = re.compile(r"scorer=(.+)", re.DOTALL)
_REPLACED = re.compile(r"replaced=([0-9.e-]+)@([0-9]+)")
_FORMS = (_CUT, _COLUMN, _FILTER, _LABELS, _SCORER, _REPLACED)
"""Of parts."""


class Filter(NamedTuple):
    """Rows whose value in a column fits a pattern, or all others."""

    column: str
    pattern: str
    """Of a shell, such as contrast_*; case is ignored."""
    wanted: bool

    def keeps(self, entry: Mapping[str, Any]) -> bool:
        """Whether a row stays. A boolean is true or false, null the empty text."""
        value = entry.get(self.column)
        text = "" if value is None else str(value)
        return fnmatch.fnmatchcase(text.casefold(), self.pattern.casefold()) == self.wanted

    def __str__(self) -> str:
        return f"#{'only' if self.wanted else 'without'}={self.column}:{self.pattern}"


class Replaced(NamedTuple):
    """That some rows of a set are not its own (see `raycib.data.replaced`)."""

    share: float
    seed: int


class Source(NamedTuple):
    """`NAME#PART#PART`: parts after the name, the cuts among them in their order.

    Only what is a known part at the very end is one: a folder may be called C#.
    """

    name: str
    columns: Mapping[str, str]
    """Role to column, where the person says so; "" for a role that no column has."""
    filters: tuple[Filter, ...]
    labels_from: int | None
    """What the first of several options is numbered, where the person says so."""
    cuts: tuple[str, ...]
    scorer: str | None = None
    """How answers are scored, where the person says so."""
    replaced: Replaced | None = None
    """Of `(A,B)`: that rows of B stand in the place of some of A's."""

    @property
    def most(self) -> int | None:
        """As many rows as are kept of those that are meant; None where all of them are."""
        head = self.cuts[0] if self.cuts else ""
        return int(head.removeprefix("first-")) if head.startswith("first-") else None

    @property
    def first(self) -> int | None:
        """As many rows of the file as are needed; None where all of them are."""
        return None if self.filters else self.most


def parse(text: str) -> Source:
    """A source from what a person wrote; `UserError` for parts that contradict each other."""
    within, _, after = text.rpartition(")")
    if text.startswith("(") and after[:1] in ("", "#"):  # what is within belongs to each of them
        name, parts = f"{within})", after.split("#")[1:]
    else:
        name, *parts = text.split("#")
    known: list[str] = []
    while parts and any(form.fullmatch(parts[-1]) for form in _FORMS):
        known.insert(0, parts.pop())
    name = "#".join([name, *parts])
    if parts and _is_file(name.rpartition("#")[0]) > _is_file(name):
        raise unknown_part(name)
    found = {form: [m for part in known if (m := form.fullmatch(part))] for form in _FORMS}
    cuts = tuple(part[0] for part in found[_CUT])
    if sum(cut in ("train", "held-out") for cut in cuts) > 1:
        raise UserError(f"{text!r} is cut twice; give one of {', '.join(cuts)}")
    return Source(
        name,
        {part[1]: part[2] for part in found[_COLUMN]},
        tuple(Filter(part[2], part[3], part[1] == "only") for part in found[_FILTER]),
        next((int(part[1]) for part in found[_LABELS]), None),
        cuts,
        next((part[1] for part in reversed(found[_SCORER])), None),
        next((Replaced(float(p[1]), int(p[2])) for p in reversed(found[_REPLACED])), None),
    )


def unknown_part(name: str) -> UserError:
    """What is said of a name whose last part is none."""
    shorter, _, last = name.rpartition("#")
    return UserError(f"unknown part {last!r} of {shorter!r}; write {PARTS}")


def several(text: str) -> list[str]:
    """The sources of a list with commas between them; a comma in the name of a file that is there
    is none of them."""
    found, pieces = [], text.split(",")
    while pieces:
        runs = (",".join(pieces[:count]) for count in range(1, len(pieces) + 1))
        found.append(next(filter(_is_there, runs), pieces[0]))
        del pieces[: found[-1].count(",") + 1]
    return found


def stem(text: str) -> str:
    """What a task from this source is called: its file's name without what follows."""
    name = parse(text).name
    if name.startswith("(") and name.endswith(")"):  # several, put together
        return "+".join(map(stem, several(name[1:-1])))
    return Path(name).stem


def _is_there(text: str) -> bool:
    name, *parts = text.split("#")
    whole = ("#".join([name, *parts[:count]]) for count in range(len(parts) + 1))
    return any(map(_is_file, whole))


def _is_file(name: str) -> bool:
    try:
        return Path(os.path.expanduser(name)).is_file()
    except (OSError, ValueError):
        return False


def named(option: str, text: str) -> dict[str, str]:
    """Files with commas between them, by what tables call them: each score of theirs, its interval
    and its counts have a column of their own ("accuracy_low" is an end of "accuracy")."""
    files = several(text)
    names = [stem(file) for file in files]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"{option} {text!r}: {twice[0]!r} comes twice; give each once, and files of one name "
            "other names"
        )
    if part := [name for name in names if name.rpartition("_")[2] in ENDS]:
        raise UserError(
            f"{option} {text!r}: in tables the scores of {part[0]!r} would take the column of "
            "another score's interval or count; give the file another name"
        )
    return dict(zip(names, files, strict=True))
