"""The registry of scorers, and which of them fits a set of rows.

A further scorer is a file here and a name in `SCORERS`, or a function of one's own, (row, answer)
to True, False or a number in [0, 1], named "my_scorers.py:function" (see `raycib.custom`). Scores
are computed anew from stored answers whenever a sweep is shown, so no scorer enters a key.
"""

from collections.abc import Sequence

from raycib.config import RowsSpec
from raycib.custom import code_of, module_at
from raycib.data.origins import origin
from raycib.data.rows import Row
from raycib.errors import UserError
from raycib.evals.refusals import is_refusal
from raycib.evals.scorers.numbers import FINAL_NUMBER
from raycib.evals.scorers.options import MULTIPLE_CHOICE
from raycib.evals.scorers.scorer import Scorer
from raycib.evals.scorers.short_answers import EXACT_MATCH

__all__ = ["NONE", "REFUSAL", "SCORERS", "Scorer", "fitting", "refusal_of", "scorer", "scorer_of"]

SHORT_WORDS, MOST_WORDS = 10, 50
"""Responses of a set of short answers: nine in ten have no more words than the first, none more
than the second (the answers of SQuAD, the longest included)."""

NONE = Scorer("none", lambda _row, _answer: None)
"""Free text is compared by no rule: what cannot be measured is not 0 %."""
REFUSAL = Scorer("refusal", lambda _row, answer: is_refusal(answer))
SCORERS = {one.name: one for one in (FINAL_NUMBER, MULTIPLE_CHOICE, EXACT_MATCH, REFUSAL, NONE)}


def scorer(name: str, option: str = "--scorer") -> Scorer:
    """The scorer of that name, or a function of one's own. `UserError` lists what there is."""
    if name in SCORERS:
        return SCORERS[name]
    if ":" not in name:
        raise UserError(
            f"{option}: no scorer {name!r}; there is {', '.join(SCORERS)}, or your own function: "
            "my_scorers.py:function"
        )
    where, _, called = name.rpartition(":")
    module, text = module_at(where, f"{option} {name}")
    function = getattr(module, called, None)
    if not callable(function):
        raise UserError(f"{option} {name!r} is no function of a row and an answer; name one")

    def score(row: Row, answer: str) -> float | None:
        try:
            found = function(row, answer)
        except Exception as error:  # whatever its author did not think of
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{option} {name} fails on {answer!r:.60}: {reason:.200}") from error
        if found is None or (isinstance(found, (bool, int, float)) and 0 <= found <= 1):
            return found
        raise UserError(f"{option} {name}: a score is {found!r:.60}; give True, False or 0 to 1")

    def fits(row: Row) -> bool:
        score(row, row.response)  # so that a mistake in it is told before anything is trained
        return True

    return Scorer(f"{name} ({code_of(module, text)[:12]})", score, fits)


def scorer_of(spec: RowsSpec, rows: Sequence[Row]) -> Scorer:
    """How answers to a set are scored: by its source's own rule, as it is named, or by the one that
    fits its rows."""
    if own := origin(spec.source).is_correct:
        return Scorer("its source's own rule", own)
    return scorer(spec.scorer) if spec.scorer else fitting(rows)


def refusal_of(spec: RowsSpec) -> Scorer:
    """How refusals of a set are told: by its source's own rule, or by how an answer opens."""
    if own := origin(spec.source).is_refusal:
        return Scorer("its source's own rule", own)
    return REFUSAL


def fitting(rows: Sequence[Row]) -> Scorer:
    """The rule that fits all rows of a set: every response is a number or ends in a line
    "#### NUMBER"; every response is a letter, or one of the lettered options of its prompt; all
    responses are short answers on one line (see `SHORT_WORDS`); else none does."""
    for one in (FINAL_NUMBER, MULTIPLE_CHOICE):
        if one.unfit(rows) is None:
            return one
    responses = [row.response.strip() for row in rows]
    words = sorted(len(response.split()) for response in responses)
    usual, longest = words[(9 * len(words) - 1) // 10], words[-1]
    one_line = all(response and "\n" not in response for response in responses)
    short = one_line and usual <= SHORT_WORDS and longest <= MOST_WORDS
    return EXACT_MATCH if short else NONE
