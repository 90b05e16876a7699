"""What was done to a sweep's files while they were read, for people: columns that were not read,
rows that were left out, texts that were joined."""

from collections.abc import Iterable, Iterator
from typing import Any

from raycib.spec import RowsSpec, RunSpec, Spec, TaskSpec


def files_read(runs: Iterable[RunSpec]) -> list[dict[str, Any]]:
    """Every set of rows from a file or the hub, once: its name, its source and what was done."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for run in runs:
        for rows in _rows_in(run):
            if rows.notes:
                told = {"set": rows.name, "source": rows.source, "read": list(rows.notes)}
                found.setdefault((rows.name, rows.source), told)
    return list(found.values())


def lines(files: Iterable[dict[str, Any]]) -> list[str]:
    """The same as one line a set."""
    return [f"{one['set']} ({one['source']}): {'; '.join(one['read'])}" for one in files]


def _rows_in(value: Any) -> Iterator[TaskSpec | RowsSpec]:
    if isinstance(value, TaskSpec | RowsSpec):
        yield value
    elif isinstance(value, Spec):
        for name in type(value).model_fields:
            yield from _rows_in(getattr(value, name))
    elif isinstance(value, tuple):
        for part in value:
            yield from _rows_in(part)
