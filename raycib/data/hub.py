"""Data sets of the Hugging Face hub as tables: a split of one, or a file of its repository."""

import re
from collections.abc import Iterable
from typing import Any

from raycib.data.file_tables import file_table
from raycib.data.tables import Table, checked
from raycib.errors import NotHere, UserError, line_of
from raycib.offline import tried_once

_FILE = re.compile(r"([^/:@]+/[^/:@]+)/([^:]+\.(?:json|jsonl|csv|tsv|parquet)(?:\.gz)?)")


def file_of(name: str) -> tuple[str, str] | None:
    """Data set and path, where a name is that of a file."""
    found = _FILE.fullmatch(name)
    return (found[1], found[2]) if found else None


def hub_table(name: str, first: int | None = None) -> Table:
    """The table of `DATASET:SPLIT`, of `DATASET@CONFIG:SPLIT`, or of `DATASET/PATH`, a file of a
    data set; no more than its `first` rows. What is fetched once is read without a network.

    A file is for what the library `datasets` does not read: sets with a script of their own, and
    a part of a large one.
    """
    where = repr(f"hub:{name}")
    try:
        if found := file_of(name):
            from huggingface_hub import hf_hub_download

            with tried_once():
                path = hf_hub_download(*found, repo_type="dataset")
            return file_table(path, first)._replace(where=where)
        return checked(where, _entries(name, first))
    except UserError:
        raise
    except Exception as error:  # the hub client raises a dozen kinds; the user mends them alike
        raise NotHere(
            f"data set {name!r} could not be loaded: {line_of(error)}; check the name and "
            "the network"
        ) from error


def _entries(name: str, first: int | None) -> Iterable[Any]:
    import datasets

    path, _, split = name.partition(":")
    path, *config = path.split("@", 1)  # DATASET@CONFIG, such as openai/gsm8k@main
    datasets.logging.set_verbosity_error()  # that a cached set is read, it says at every reading
    with tried_once(datasets.config):
        rows: Any = datasets.load_dataset(path, *config, split=split or "train")
    return rows if first is None else rows.select(range(min(first, len(rows))))
