"""Rows at a source, cut as its parts say, and the specs of them."""

import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from raycib.config import RowsSpec, TaskSpec
from raycib.config.base import digest_of
from raycib.counting import count
from raycib.data.columns import TEXTS, Row
from raycib.data.origins import origin
from raycib.errors import UserError

HELD_OUT_EVERY = 10
"""Of a file of one's own, every tenth row is held out of training."""
HELD_OUT_AT_MOST = 500


class Loaded(NamedTuple):
    """Rows in a fixed order, and what was done to get them."""

    rows: list[Row]
    notes: tuple[str, ...]
    """In words, one thing each: columns not read, rows left out, texts joined."""


def load_rows(source: str) -> list[Row]:
    """The rows of `read_rows`."""
    return read_rows(source).rows


def read_rows(source: str) -> Loaded:
    """The rows at `source`, in a fixed order.

    `world:NAME` (a set of the embedded world), `FILE` (JSON, JSONL, CSV, TSV or Parquet with named
    columns), `hub:DATASET:SPLIT`, or `(A,B)`, several of them together. After any of them, in this
    order of effect: `#only=COLUMN:VALUE` and `#without=COLUMN:VALUE` choose rows, `#prompt=COLUMN`
    (or context, response, system) says what a column is, `#labels-from=0` how options are numbered,
    `#scorer=NAME` how answers are scored; `#train` and `#held-out` cut the rows in two; `#first-N`
    takes no more than N, `#every-N` the first of every N.
    Raises `UserError`, with row and column, for anything that cannot be read as rows.
    """
    found = origin(source)
    rows, notes = found.read()
    name, cuts = found.source.name, found.source.cuts
    for cut in cuts:
        if cut.startswith("first-"):
            rows = rows[: int(cut.removeprefix("first-"))]
            continue
        if cut.startswith("every-"):
            rows = rows[:: int(cut.removeprefix("every-"))]
            continue
        train, held_out, left_out = _cut(rows, name)
        rows = train if cut == "train" else held_out
        if cut == "train" and left_out:
            notes.append(
                f"left out of training, as a held-out row asks the same: {count(left_out, 'row')}"
            )
        if not rows:
            raise UserError(
                f"{name!r} has {count(len(train), 'row')}, of which none is held out; a task needs "
                f"at least {HELD_OUT_EVERY}"
            )
    return Loaded(rows, tuple(notes))


def _cut(rows: list[Row], name: str) -> tuple[list[Row], list[Row], int]:
    """Training rows, held-out rows, and how many are neither: rows that ask what a held-out row
    asks would be learned before they are asked, and are left out of training."""
    places = range(HELD_OUT_EVERY - 1, len(rows), HELD_OUT_EVERY)[:HELD_OUT_AT_MOST]
    held_out = [rows[number] for number in places]
    asked = {question(row) for row in held_out}
    rest = [row for number, row in enumerate(rows) if number not in places]
    train = [row for row in rest if question(row) not in asked] if asked else rest
    if not train:
        raise UserError(f"all rows of {name!r} ask what its held-out rows ask; give others")
    return train, held_out, len(rest) - len(train)


def question(row: Row) -> str:
    """What a row asks, whatever the case, the white space and the form of its characters."""
    text = unicodedata.normalize("NFKC", f"{row.system}\n{row.prompt}")
    return " ".join(text.casefold().split())


def _repeats(rows: Sequence[Row]) -> list[str]:
    """How many rows ask what an earlier one asks."""
    again = len(rows) - len({hash(question(row)) for row in rows})
    if not again:
        return []
    same = len(rows) - len(set(map(hash, rows)))
    return [
        f"asks what an earlier row asks, and counts again: {count(again, 'row')} ({same} with "
        "its answer)"
    ]


def fingerprint(rows: Sequence[Row]) -> str:
    """sha256 over prompts and responses, and what else a row has, in order."""
    return digest_of(_content(row) for row in rows)


def _content(row: Row) -> list[object]:
    if row.other_answers:
        return [*row[:3], list(row.other_answers)]
    return [*row[:3]] if row.system else [*row[:2]]


def describe_task(
    name: str, source: str, max_length: int, loaded: Loaded | None = None
) -> TaskSpec:
    """The spec of the training rows at `source` (`loaded`, where they are read already); every row
    must have a response."""
    told = _described(source, loaded, answered=True)
    return TaskSpec(name=name, source=source, max_length=max_length, **told)


def describe_rows(
    name: str,
    source: str,
    max_length: int,
    max_tokens: int,
    loaded: Loaded | None = None,
    answered: bool = False,
) -> RowsSpec:
    """The spec of the rows at `source` (`loaded`, where they are read already), to ask or to
    measure on; with `answered`, every row must have a response to compare with."""
    return RowsSpec(
        name=name,
        source=source,
        max_length=max_length,
        max_tokens=max_tokens,
        scorer=origin(source).source.scorer,
        **_described(source, loaded, answered),
    )


def _described(source: str, loaded: Loaded | None, answered: bool) -> dict[str, Any]:
    """What a spec says of the rows themselves."""
    rows, notes = loaded or read_rows(source)
    if answered:
        _refuse_unanswered(rows, notes, source)
    told = {"rows": fingerprint(rows), "num_rows": len(rows)}
    return told | {"notes": (*notes, *_repeats(rows))}


def _refuse_unanswered(rows: Sequence[Row], notes: Sequence[str], source: str) -> None:
    missing = [row for row in rows if not row.response]
    if missing:
        whole, _ = origin(source).read()
        read = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(
            f"{source!r} has {count(len(missing), 'row')} without a response (the first is row "
            f"{whole.index(missing[0]) + 1}); a task needs one in every row, under one of "
            f"{TEXTS['response']} or chosen with #response=COLUMN{read}"
        )


def rows_of(spec: TaskSpec | RowsSpec) -> list[Row]:
    """The rows of a spec, without those that are too long, checked against its fingerprint."""
    left_out = set(spec.left_out)
    rows = [row for n, row in enumerate(load_rows(spec.source)) if n not in left_out]
    if (found := fingerprint(rows)) != spec.rows:
        raise UserError(
            f"{spec.source!r} changed since the plan was made ({found[:12]} instead of "
            f"{spec.rows[:12]}); start the sweep again"
        )
    return rows
