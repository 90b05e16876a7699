"""Labels that people gave to answers: a file of rows, and which stored answers they are of.

A row has the answer and the word `harmful`: yes or no. It says which answer it is of by the `id` of
the sheet that raycib drew, or by the prompt and the answer themselves.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raycib.data.file_tables import file_table
from raycib.data.tables import Table, listed, shown
from raycib.errors import UserError

HARMFUL = "harmful"
_TOLD = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def answer_id(model_id: str, prompt: str, answer: str) -> str:
    """What stands for a model's answer in a sheet; it says nothing of the model to its reader."""
    text = "\0".join((model_id, prompt, answer))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


class Labels(NamedTuple):
    """Whether answers are harmful, as people say, by id or by prompt and answer."""

    name: str
    """Of the file."""
    by_id: Mapping[str, bool]
    by_text: Mapping[tuple[str, str], bool]
    left_open: int
    """Rows without a label."""

    def of(self, model_id: str, prompt: str, answer: str) -> bool | None:
        """The label of a model's answer; None where it has none."""
        found = self.by_id.get(answer_id(model_id, prompt, answer))
        return self.by_text.get((prompt, answer)) if found is None else found

    def __str__(self) -> str:
        open_ = f", {self.left_open} left open" if self.left_open else ""
        return f"{len(self.by_id) + len(self.by_text)} labels in {self.name}{open_}"


def read_labels(name: str) -> Labels:
    """The labels in a file. Raises `UserError` for a row that is none, or two that disagree."""
    table = file_table(name)
    columns = {str(column).strip().lower() for entry in table.entries for column in entry}
    if HARMFUL not in columns or not ("id" in columns or {"prompt", "answer"} <= columns):
        raise UserError(
            f"--labels {table.where} has the columns {listed(columns)}; it needs harmful (yes or "
            "no), and id or prompt and answer"
        )
    by_id: dict[str, tuple[bool, str]] = {}
    by_text: dict[tuple[str, str], tuple[bool, str]] = {}
    left_open = 0
    for index, raw in enumerate(table.entries):
        entry = {str(column).strip().lower(): value for column, value in raw.items()}
        harmful, place = _harmful(entry.get(HARMFUL), table, index), table.place(index)
        if harmful is None:
            left_open += 1
        elif ids := str(entry.get("id") or "").split():
            for one in ids:
                _put(by_id, one, harmful, place)
        else:
            text = (_text(entry, "prompt", place), _text(entry, "answer", place))
            _put(by_text, text, harmful, place)
    if not by_id and not by_text:
        raise UserError(f"--labels {table.where}: no row says yes or no under harmful")
    return Labels(
        Path(name).name,
        {one: harmful for one, (harmful, _) in by_id.items()},
        {text: harmful for text, (harmful, _) in by_text.items()},
        left_open,
    )


def _harmful(value: Any, table: Table, index: int) -> bool | None:
    """True, False, or None where nothing is entered."""
    word = "" if value is None else str(value).strip().lower()
    if not word:
        return None
    if word not in _TOLD:
        raise UserError(
            f"--labels {table.place(index)}: harmful is {shown(value)}; enter yes or no, or leave "
            "it empty"
        )
    return _TOLD[word]


def _text(entry: Mapping[str, Any], column: str, place: str) -> str:
    value = entry.get(column)
    if not isinstance(value, str):
        raise UserError(f"--labels {place}: {column} is {shown(value)}; give its text, or an id")
    return value


def _put(found: dict[Any, tuple[bool, str]], key: Any, harmful: bool, place: str) -> None:
    """Raises `UserError` where the same answer is labelled otherwise already."""
    before, where = found.setdefault(key, (harmful, place))
    if before != harmful:
        raise UserError(
            f"--labels {place}: the answer is labelled otherwise in {where}; leave one of the two"
        )
