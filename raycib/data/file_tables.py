"""Reading a file into a table.

Nothing is guessed: what is not clearly a table is refused with its row and line. A file of lines or
of Parquet is read as often as its table is gone through, entry by entry: it may be larger than
memory.
"""

import os
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from raycib.data.csv_tables import csv_table
from raycib.data.json_tables import json_lines_table, json_table
from raycib.data.tables import Entries, Table, checked, named_once
from raycib.data.text_files import FORMATS, ordinary_file
from raycib.errors import UserError, line_of

BATCH = 1024
"""Rows of a Parquet file that are in memory at once."""


def file_table(name: str, first: int | None = None) -> Table:
    """The table in a file; `UserError` for anything that is none. Of a Parquet file, which may be
    larger than memory, no more than the `first` rows are read."""
    path = Path(os.path.expanduser(name))
    where = repr(str(path))
    suffix = Path(path.stem if path.suffix.lower() == ".gz" else path).suffix.lower()
    match suffix:
        case ".csv" | ".tsv":
            return csv_table(path, where, suffix)
        case ".jsonl" | ".ndjson":
            return json_lines_table(path, where)
        case ".json":
            return json_table(path, where)
        case ".parquet":
            return checked(
                where, Entries(partial(_parquet, ordinary_file(path, where), where, first))
            )
        case _:
            ordinary_file(path, where)  # which is told first
            raise UserError(f"{where} ends in {suffix!r}; give a {FORMATS}")


def _parquet(path: Path, where: str, first: int | None) -> Iterator[Any]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            named_once(file.schema_arrow.names, where)
            batches = file.iter_batches(batch_size=min(first or BATCH, BATCH))
            yield from islice((row for one in batches for row in one.to_pylist()), first)
    except UserError:
        raise
    except Exception as error:  # Arrow's own errors, and of values that Python cannot hold
        raise UserError(f"{where} is not a readable Parquet file: {line_of(error)}") from error
