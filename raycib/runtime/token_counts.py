"""How long a sweep's rows are in its model's tokens, known before anything starts."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raycib.child import in_a_process
from raycib.config import ModelSpec, digest
from raycib.data.lengths import Length, Lengths
from raycib.data.rows import Loaded, Row, fingerprint, read_rows
from raycib.model_files import context_length, find, is_shipped
from raycib.store import Store
from raycib.store.kinds import LENGTHS
from raycib.world import tokenizer as world_tokenizer

FILE = "lengths.json"
"""Where lengths are kept, so that they are counted once."""


class TokenCounts:
    """Lengths of rows for one tokenizer and template, counted once: in a process of their own (or
    by `counted` in this one), or read from the store at `root`. `read` are rows, by source, that
    were read before."""

    def __init__(
        self,
        model: ModelSpec,
        root: str,
        read: Mapping[str, Loaded],
        counted: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.model, self._root = model, root
        self._counted = counted
        self._read = dict(read)
        self._known: dict[Row, Length] = {}
        self._end = 0
        self._new: list[list[Row]] = []
        self.notes: tuple[str, ...] = ()
        """What of the chat template is mended."""

    def read(self, source: str) -> Loaded:
        """The rows at `source`, read once."""
        if source not in self._read:
            self._read[source] = read_rows(source)
        return self._read[source]

    def context(self, most: int) -> int:
        """Tokens that the model takes, at most `most`."""
        return context_length(self.model.source, most)

    def of(self, answered: Sequence[str], asked: Sequence[str] = ()) -> list[Lengths]:
        """Lengths of the rows at each of these sources, of `asked` ones without any answer; ask for
        many at once, for a process takes seconds. Raises UserError for rows or a tokenizer that
        cannot be read."""
        sets = [self.read(source).rows for source in answered]
        sets += [
            [row._replace(response="", other_answers=()) for row in self.read(source).rows]
            for source in asked
        ]
        missing = [rows for rows in sets if not self._knows(rows)]
        for rows, (end, counted) in zip(missing, self._count(missing), strict=True):
            self._learn(rows, end, counted)
        return [Lengths(tuple(self._known[row] for row in rows), self._end) for rows in sets]

    def keep(self, store: Store) -> None:
        """Put what a process had to count into the store."""
        for rows in self._new:
            text = json.dumps([self._end, [self._known[row] for row in rows]])
            about = {"model": self.model.source, "rows": len(rows), "notes": self.notes}
            store.put_text(LENGTHS, self._key(rows), FILE, text, about)
        self._new.clear()

    def _key(self, rows: Sequence[Row]) -> str:
        how = {"tokenizer": self.model.tokenizer, "template": self.model.template}
        return digest({"lengths": 1, "rows": fingerprint(rows), **how})

    def _knows(self, rows: Sequence[Row]) -> bool:
        there = "://" in self._root or os.path.isdir(self._root)  # a look makes no folder
        if not all(row in self._known for row in rows) and there:
            record = Store(self._root).get(LENGTHS, self._key(rows))
            if record:
                self._learn(rows, *record.value(FILE))
                self.notes = tuple(record.about["notes"])
        return all(row in self._known for row in rows)

    def _learn(self, rows: Sequence[Row], end: int, counted: Sequence[Sequence[Any]]) -> None:
        self._end = end
        self._known |= {row: Length(*one) for row, one in zip(rows, counted, strict=True)}

    def _count(self, sets: list[list[Row]]) -> list[Any]:
        """(Tokens that close an answer, lengths of each row) of each set."""
        if not sets:
            return []
        if is_shipped(self.model.source) and self.model.template == "own":
            folder = find(self.model.source)
            texts = [[(row.prompt, row.response, row.system) for row in rows] for rows in sets]
            return [(1, world_tokenizer.lengths(folder, rows)) for rows in texts]
        self._new += sets
        asked = {"source": self.model.source, "template": self.model.template, "sets": sets}
        found = (self._counted or _in_a_process)(asked)
        self.notes = tuple(found["notes"])
        return found["sets"]


def _in_a_process(asked: dict[str, Any]) -> dict[str, Any]:
    """What `count_tokens.counted` finds. Raises UserError."""
    failing = f"tokens of {asked['source']!r} could not be counted"
    return in_a_process("raycib.runtime.count_tokens:counted", asked, failing)
