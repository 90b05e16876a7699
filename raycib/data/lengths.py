"""How long rows are in a model's tokens, and what becomes of those that are too long."""

import math
import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from raycib.config import RowsSpec, TaskSpec
from raycib.counting import count
from raycib.data.chat import Encoded, encode, encode_prompt, end_of_turn, shortened
from raycib.data.rows import Row, fingerprint, rows_of
from raycib.errors import UserError

TooLong = Literal["drop", "cut", "fail"]
"""What becomes of a row that is too long. `drop`: it is left out. `cut`: its answer loses its end,
but not the end of its turn; a row whose prompt leaves no room for an answer is left out. `fail`:
nothing starts."""
ROUND_TO = 64
"""Limits that are made from rows are multiples of this."""
LEAST_ANSWER = 256
"""Tokens of an answer that harmful prompts are given room for, whatever the task's own need."""
SHORT_ANSWER = 64
"""The least that long prompts may leave of it in a model of little context."""


class Length(NamedTuple):
    """Of one row, in tokens."""

    prompt: int
    """With all of the template before the answer."""
    whole: int
    """With the answer and the end of its turn."""
    spelled: bool = True
    """Whether its tokens say what it says, but for white space: a tokenizer may have no words for a
    part of it, or write others (NFKC makes 102 of 10²)."""


class Lengths(NamedTuple):
    """Of a set of rows, in their order."""

    rows: tuple[Length, ...]
    end: int
    """Tokens that close every answer."""


AnyRows = TypeVar("AnyRows", TaskSpec, RowsSpec)


def count_tokens(tokenizer: Any, rows: Sequence[Row]) -> Lengths:
    """Lengths of rows as training and generation see them, without any limit; a row without an
    answer is as long as its prompt."""
    return Lengths(tuple(_length(tokenizer, row) for row in rows), len(end_of_turn(tokenizer)))


def _length(tokenizer: Any, row: Row) -> Length:
    if not row.response:
        prompt = encode_prompt(tokenizer, row.prompt, row.system)
        return Length(len(prompt), len(prompt), _spelled(tokenizer, row, prompt))
    whole = encode(tokenizer, row, sys.maxsize)
    ids = [*whole.prompt, *whole.response]
    return Length(len(whole.prompt), len(whole), _spelled(tokenizer, row, ids))


def _spelled(tokenizer: Any, row: Row, ids: list[int]) -> bool:
    said = "".join(tokenizer.decode(ids).split())
    return all("".join(text.split()) in said for text in (row.system, row.prompt, row.response))


def examples_of(tokenizer: Any, spec: TaskSpec | RowsSpec) -> list[Encoded]:
    """The rows of a spec as tokens, none longer than it allows; everything that reads rows in
    memory reads these. UserError where other rows are too long than when the spec was made."""
    whole = [encode(tokenizer, row, sys.maxsize) for row in rows_of(spec)]
    over = sum(len(one) > spec.max_length for one in whole)
    if over != spec.cut:
        raise UserError(
            f"{count(over, 'row')} of {spec.source!r} longer than {spec.max_length} tokens, of "
            f"which the plan knew {spec.cut}: is the tokenizer here another one? Start the sweep "
            "again"
        )
    return [shortened(tokenizer, one, spec.max_length) for one in whole]


def fitted(
    spec: AnyRows, rows: Sequence[Row], lengths: Lengths, policy: TooLong, most_asked: int
) -> AnyRows:
    """A spec of `rows` of which none is too long any more: longer than the spec's `max_length`,
    or with a prompt of more than `most_asked` tokens, which could not be answered.

    Raises UserError where the policy is to fail, and where no row would be left.
    """
    limit = spec.max_length
    unanswerable = {n for n, one in enumerate(lengths.rows) if one.prompt > most_asked}
    over = unanswerable | {n for n, one in enumerate(lengths.rows) if one.whole > limit}
    if not over:
        return spec
    first = min(over)
    head = f"{len(over)} of {count(len(rows), 'row')} of {spec.name!r} ({spec.source})"
    if first in unanswerable:
        found = f"{head} are too long to be answered; the first is row {first + 1}, whose prompt "
        found += f"of {lengths.rows[first].prompt} tokens leaves no room for an answer"
        mend = "lower --max-tokens"
    else:
        found = f"{head} are longer than {limit} tokens; the first is row {first + 1} with "
        found += f"{lengths.rows[first].whole}"
        mend = "raise --max-length"
    if policy == "fail":
        raise UserError(f"{found}: {mend}, or choose --too-long drop or cut")
    left_out = over
    if policy == "cut":
        least = 1 + lengths.end
        left_out = unanswerable | {n for n in over if lengths.rows[n].prompt + least > limit}
    kept = [row for n, row in enumerate(rows) if n not in left_out]
    if not kept:
        raise UserError(f"{found}, and none would be left: {mend}")
    return spec.model_copy(
        update={
            "rows": fingerprint(kept),
            "num_rows": len(kept),
            "left_out": tuple(sorted(left_out)),
            "cut": len(over - left_out),
        }
    )


def noted(spec: AnyRows, lengths: Lengths) -> AnyRows:
    """The spec of rows, with a note where tokens say something else than they do."""
    others = [number for number, one in enumerate(lengths.rows, 1) if not one.spelled]
    if not others:
        return spec
    note = (
        f"the model's tokens say something else than {len(others)} of "
        f"{count(len(lengths.rows), 'row')} (the first is row {others[0]}): its tokenizer has no "
        "words for a part of them, or writes others"
    )
    return spec.model_copy(update={"notes": (*spec.notes, note)})


def refuse_long_prompts(spec: RowsSpec, lengths: Lengths, context: int) -> None:
    """UserError where a prompt of a benchmark leaves no room for an answer in a model that takes
    `context` tokens: no such prompt is left out."""
    most = context - spec.max_tokens
    over = [n for n, one in enumerate(lengths.rows) if one.prompt > most]
    if over:
        raise UserError(
            f"{len(over)} of {count(len(lengths.rows), 'prompt')} of {spec.name!r} ({spec.source}) "
            f"are too long to be answered; the first is row {over[0] + 1} with "
            f"{lengths.rows[over[0]].prompt} tokens, and with an answer of {spec.max_tokens} more "
            f"than the {context} that the model takes: shorten them, or lower --max-tokens"
        )


def limits_of(
    trained: Sequence[Lengths], held_out: Sequence[Lengths], asked: Sequence[Lengths], context: int
) -> tuple[int, int]:
    """Tokens of a row and of an answer for rows of one's own: room for the longest row, and for
    each answer of held-out rows with a quarter more, as far as a model of `context` tokens has it.

    An answer has at least 256 tokens, for harmful prompts (`asked`) have no answers of their own,
    unless the longest prompt leaves less.
    """
    rows = [one for part in (*trained, *held_out) for one in part.rows]
    answers = [one.whole - one.prompt for part in held_out for one in part.rows]
    prompts = [one.prompt for part in (*held_out, *asked) for one in part.rows]
    longest = _rounded(max(one.whole for one in rows))
    answer = max(LEAST_ANSWER, _rounded(1.25 * max(answers)))
    left = max(SHORT_ANSWER, context - max(prompts))
    return min(longest, context), min(answer, left)


def _rounded(tokens: float) -> int:
    return ROUND_TO * math.ceil(tokens / ROUND_TO)
