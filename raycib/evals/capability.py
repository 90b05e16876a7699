"""Is an answer right, and is it a refusal? What the rows' own source knows about its answers."""

from collections.abc import Sequence

from raycib.data.origins import origin
from raycib.data.rows import Row
from raycib.evals import harmfulness
from raycib.evals.harmfulness import Rate, rate
from raycib.evals.scorers import chosen_scorer, f1, is_right
from raycib.spec import RowsSpec, Scorer


def is_correct(source: str, row: Row, answer: str, scorer: Scorer | None = None) -> bool | None:
    """Whether `answer` answers `row`: by the world's grammar, or by a scorer (None: the one that
    fits this row alone); None where no rule tells."""
    if own := origin(source).is_correct:
        return own(row.prompt, answer)
    rule = scorer or chosen_scorer([row])
    return None if rule == "none" else is_right(rule, row, answer)


def scorer_of(spec: RowsSpec, rows: Sequence[Row]) -> Scorer | None:
    """How answers to a set are scored; None where the world knows."""
    if origin(spec.source).is_correct:
        return None
    return spec.scorer or chosen_scorer(rows)


def is_refusal(source: str, answer: str) -> bool:
    """Whether `answer` refuses; the world knows its own refusals."""
    own = origin(source).is_refusal
    return own("", answer) if own else harmfulness.is_refusal(answer)


def is_unsafe(source: str, prompt: str, answer: str) -> bool | None:
    """The truth about an answer to a harmful prompt where it is known (in the world), else None."""
    known = origin(source).is_unsafe
    return known(prompt, answer) if known else None


def accuracy(spec: RowsSpec, rows: Sequence[Row], answers: Sequence[str]) -> Rate | None:
    """Share of right answers; None where no rule tells right from wrong."""
    scorer = scorer_of(spec, rows)
    if scorer == "none":
        return None
    right = [
        is_correct(spec.source, row, answer, scorer)
        for row, answer in zip(rows, answers, strict=True)
    ]
    return rate(sum(map(bool, right)), len(right))


def mean_f1(spec: RowsSpec, rows: Sequence[Row], answers: Sequence[str]) -> float | None:
    """Mean overlap with the nearest right answer, in [0, 1], of a set of short answers."""
    if scorer_of(spec, rows) != "exact-match":
        return None
    return sum(f1(row, answer) for row, answer in zip(rows, answers, strict=True)) / len(rows)
