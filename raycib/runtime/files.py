"""What was done to a sweep's files while they were read, for people: columns that were not read,
rows that were left out, texts that were joined; and what of a chat template is mended."""

from collections.abc import Iterable, Iterator
from typing import Any

from raycib.config import ModelSpec, RowsSpec, RunSpec, Spec, TaskSpec
from raycib.results import FileRead


def files_read(runs: Iterable[RunSpec]) -> list[FileRead]:
    """Every set of rows from a file or the hub, and the model, once: its name, its source and what
    was done."""
    found: dict[tuple[str, str], FileRead] = {}
    for run in runs:
        for read in _read_in(run):
            if read.notes:
                name = "chat template" if isinstance(read, ModelSpec) else read.name
                told = FileRead(set=name, source=read.source, read=read.notes)
                found.setdefault((name, read.source), told)
    return list(found.values())


def lines(files: Iterable[FileRead]) -> list[str]:
    """The same as one line a set."""
    return [f"{one.set} ({one.source}): {'; '.join(one.read)}" for one in files]


def _read_in(value: Any) -> Iterator[ModelSpec | TaskSpec | RowsSpec]:
    if isinstance(value, ModelSpec | TaskSpec | RowsSpec):
        yield value
    elif isinstance(value, Spec):
        for name in type(value).model_fields:
            yield from _read_in(getattr(value, name))
    elif isinstance(value, tuple):
        for part in value:
            yield from _read_in(part)
