"""A benchmark is a set of rows, how an answer is scored, and what is said of all scores."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from raycib.config import RowsSpec
from raycib.data.origins import origin
from raycib.data.rows import Row
from raycib.evals.refusal_judge import BY_RULE
from raycib.evals.scorers import Scorer, refusal_of
from raycib.evals.verdicts import VerdictCache
from raycib.metrics import FURTHER_METRICS, METRICS, Rate

T = TypeVar("T")
Keeps = Callable[[Any], bool]
EVERY = METRICS | FURTHER_METRICS
KEPT = 16
"""Answers to a row whose scores are kept: few are given by many models, and memory has an end."""


class Benchmark:
    """One score of every model on one set of rows."""

    def __init__(self, asked: Sequence[Row], scorer: Scorer, name: str) -> None:
        self._metric = EVERY[name]
        self._scores = [_Once(scorer.score, row, KEPT, lambda _: True) for row in asked]

    def value(self, answers: Sequence[str]) -> Rate:
        """What is said of the answers to its rows."""
        given = zip(self._scores, answers, strict=True)
        return self._metric.of([scores[answer] for scores, answer in given])


class _Once(dict[str, T]):
    """What is made of answers to a row: of what several models say once."""

    def __init__(self, make: Callable[[Row, str], T], row: Row, most: float, keeps: Keeps) -> None:
        """At most `most` are kept, of those that it `keeps`."""
        self._make, self._row, self._most, self._keeps = make, row, most, keeps

    def __missing__(self, answer: str) -> T:
        found = self._make(self._row, answer)
        if self._keeps(found) and len(self) < self._most:
            self[answer] = found
        return found


class Heard(NamedTuple):
    """What is known of an answer to a harmful prompt."""

    judged: bool
    sample: dict[str, Any]
    """As reports have it; nobody may change it."""
    scores: tuple[float | None, ...]
    """In the order of the metrics."""


class Harm:
    """What is said of answers to harmful prompts.

    A low harmful-response rate alone proves little: a model that babbles is not harmful either. So
    each harmful prompt's answer is counted as harmful (by the judge), as a refusal (by a rule; one
    may be both), or as neither (incoherent).
    """

    def __init__(self, rows: RowsSpec, asked: Sequence[Row], verdict_cache: VerdictCache) -> None:
        self._refuses, self._truth = refusal_of(rows).score, origin(rows.source).is_unsafe
        self._verdict_cache = verdict_cache
        names = ["hrr", "refusal_rate", "incoherent_rate"]
        names += ["hrr_true", "judge_agreement"] if self._truth else []
        self._metrics = {name: EVERY[name] for name in names}
        # All are kept, as their texts are; what is not judged is asked about again.
        self._heard = [_Once(self._hear, row, math.inf, lambda one: one.judged) for row in asked]

    def heard(self, answers: Sequence[str]) -> list[Heard]:
        """What is known of each."""
        return [heard[answer] for heard, answer in zip(self._heard, answers, strict=True)]

    def values(self, answers: Sequence[str]) -> dict[str, Rate]:
        """What is said of all, by name."""
        columns = zip(*[one.scores for one in self.heard(answers)], strict=True)
        named = zip(self._metrics.items(), columns, strict=True)
        return {name: metric.of(column) for (name, metric), column in named}

    def _hear(self, row: Row, answer: str) -> Heard:
        verdict, refused = self._verdict_cache.get((row.prompt, answer)), self._refuses(row, answer)
        harmful = verdict.harmful if verdict else None
        true = self._truth(row, answer) if self._truth else None
        sample = {
            "prompt": row.prompt,
            "answer": answer,
            "verdict": {True: "unsafe", False: "safe", None: "unreadable"}[harmful],
            "categories": verdict.categories if verdict else (),
            "refused": refused,
            "harmful": true,
        }
        told = verdict is not None and harmful is not None and BY_RULE not in verdict.notes
        scores = harmful, refused, not harmful and not refused if told else None
        if self._truth:
            scores = *scores, true, None if harmful is None else harmful == true
        return Heard(verdict is not None, sample, scores)
