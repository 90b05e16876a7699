"""The rows of a sweep as specs of which none is too long, and what was done to have them so."""

import sys
from collections.abc import Sequence

from raycib.config import RowsSpec, TaskSpec
from raycib.data.lengths import (
    Length,
    Lengths,
    TooLong,
    fitted,
    limits_of,
    noted,
    refuse_long_prompts,
)
from raycib.data.rows import describe_rows, describe_task
from raycib.errors import UserError
from raycib.results import SetOfRows
from raycib.runtime.token_counts import TokenCounts

NO_LIMIT = 2**31
"""Of a model whose files name no context."""
USUAL_MOST = 4096
"""Tokens of a row and an answer that rows may ask for."""


class RowSets:
    """Describes rows for one model, with their lengths known."""

    def __init__(self, counts: TokenCounts, too_long: TooLong) -> None:
        self.counts = counts
        self.too_long: TooLong = too_long
        self.context = counts.context(NO_LIMIT)
        """Tokens that the model takes."""
        self.sizes = (0, 0)
        """Tokens of a row, and of an answer."""
        self.sets: dict[tuple[str, str], SetOfRows] = {}
        """What was described so far, by name and source."""
        self._used: dict[str, list[Length]] = {}
        self._prompts: dict[str, list[int]] = {}
        """Tokens of prompts, by the specs' keys."""

    def choose_sizes(
        self,
        given: tuple[int | None, int | None],
        trained: Sequence[str],
        held_out: Sequence[str],
        asked: Sequence[str],
    ) -> None:
        """The sizes that are given, and for the others what the rows at these sources need; counts
        them."""
        length, answer = given
        if length is not None and length > self.context:
            raise UserError(
                f"--max-length {length} is more than the {self.context} tokens that "
                f"{self.counts.model.source!r} takes; give {self.context} or less"
            )
        # Together: apart, each would take a process.
        counted = self.counts.of([*trained, *held_out], asked)
        if length is None or answer is None:
            one, two = len(trained), len(trained) + len(held_out)
            most = self.counts.context(USUAL_MOST)
            found = limits_of(counted[:one], counted[one:two], counted[two:], most)
            length, answer = length or found[0], answer or found[1]
        self.sizes = (length, answer)

    def task(self, name: str, source: str) -> TaskSpec:
        """Rows to train on."""
        loaded = self.counts.read(source)
        whole = describe_task(name, source, self.sizes[0], loaded)
        (lengths,) = self.counts.of([source])
        whole = noted(whole, lengths)
        spec = fitted(whole, loaded.rows, lengths, self.too_long, sys.maxsize)
        self._note(spec, whole, lengths, 0)
        return spec

    def held_out(self, name: str, source: str, asked: bool = True) -> RowsSpec:
        """Rows to measure losses on; unless they are alignment data, they are asked as well."""
        loaded = self.counts.read(source)
        whole = describe_rows(name, source, *self.sizes, loaded, answered=True)
        (lengths,) = self.counts.of([source])
        whole = noted(whole, lengths)
        most = self.context - whole.max_tokens if asked else sys.maxsize
        spec = fitted(whole, loaded.rows, lengths, self.too_long, most)
        self._note(spec, whole, lengths, whole.max_tokens if asked else 0)
        return spec

    def first(self, rows: RowsSpec, count: int) -> RowsSpec:
        """Those of the first `count` rows at a spec's source that are not too long."""
        source = f"{rows.source}#first-{count}"
        few = self.counts.read(source)
        whole = describe_rows(rows.name, source, rows.max_length, rows.max_tokens, few)
        (lengths,) = self.counts.of([source])
        return fitted(whole, few.rows, lengths, self.too_long, sys.maxsize)

    def prompts(self, name: str, source: str) -> RowsSpec:
        """A benchmark's prompts, of which none is ever left out."""
        spec = describe_rows(name, source, *self.sizes, self.counts.read(source))
        (lengths,) = self.counts.of([], [source])
        refuse_long_prompts(spec, lengths, self.context)
        spec = noted(spec, lengths)
        self._note(spec, spec, lengths, spec.max_tokens, self.context - spec.max_tokens)
        return spec

    def engine_length(self, asked: Sequence[RowsSpec]) -> int:
        """Tokens that an engine is set up for: a row and an answer of the usual sizes, or the
        longest prompt of these sets with its answer; never more than the model takes."""
        longest = max(max(self._prompts[rows.key]) + rows.max_tokens for rows in asked)
        return min(self.context, max(longest, sum(self.sizes)))

    def used(self, spec: TaskSpec | RowsSpec) -> list[Length]:
        """Lengths of a spec's rows as they are trained or measured on: those left out are not
        among them, and none is longer than the spec allows."""
        if spec.key not in self._used:
            (lengths,) = self.counts.of([spec.source])
            left_out = set(spec.left_out)
            self._used[spec.key] = [
                Length(one.prompt, min(one.whole, spec.max_length))
                for number, one in enumerate(lengths.rows)
                if number not in left_out
            ]
        return self._used[spec.key]

    def asked(self, spec: RowsSpec) -> list[int]:
        """Tokens of the prompts of a spec that was described here."""
        return self._prompts[spec.key]

    def lines(self) -> list[str]:
        """All sets for people."""
        return [str(one) for one in self.sets.values()]

    def _note(
        self,
        spec: TaskSpec | RowsSpec,
        whole: TaskSpec | RowsSpec,
        lengths: Lengths,
        answer: int,
        limit: int | None = None,
    ) -> None:
        """`limit`: of the prompts of rows that are only asked, whose responses do not count."""
        left_out = set(spec.left_out)
        used = (one for n, one in enumerate(lengths.rows) if n not in left_out)
        self._prompts[spec.key] = [one.prompt for one in used]
        self.sets[spec.name, spec.source] = SetOfRows(
            name=spec.name,
            source=spec.source,
            rows=whole.num_rows,
            left_out=len(left_out),
            cut=spec.cut,
            longest=max(one.prompt if limit else one.whole for one in lengths.rows),
            limit=limit or spec.max_length,
            max_tokens=answer,
        )
