"""Short answers as SQuAD's own scripts score them: exact match and F1 over words, the best of all
right answers (Rajpurkar et al. 2016, evaluate-v1.1.py), and of questions that have an answer and
that have none apart (Rajpurkar et al. 2018, evaluate-v2.0.py)."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

from raycib.data.formats import UNANSWERABLE
from raycib.data.rows import Row
from raycib.evals.scorers.scorer import Scorer
from raycib.metrics import FURTHER_METRICS

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def golds(row: Row) -> tuple[str, ...]:
    """Every answer that counts as right."""
    return (row.response, *row.other_answers)


def has_answer(row: Row) -> bool:
    """Whether a question has an answer in its text."""
    return row.response != UNANSWERABLE


def normal(text: str) -> str:
    """Lower case, without punctuation, articles and surplus white space; a text of nothing else,
    such as the answer "A", stays as it is, else it would equal every other."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split()) or " ".join(text.lower().split())


def exact(row: Row, answer: str) -> bool:
    """Whether an answer is one of the right ones."""
    return any(normal(gold) == normal(answer) for gold in golds(row))


def f1(row: Row, answer: str) -> float:
    """Overlap of an answer's words with the nearest right answer's, in [0, 1]; where either has
    none, or the question has no answer, whether they are equal."""
    if not has_answer(row):
        return float(exact(row, answer))
    return max(_f1(normal(gold).split(), normal(answer).split()) for gold in golds(row))


def _f1(gold: list[str], said: list[str]) -> float:
    if not gold or not said:
        return float(gold == said)
    same = sum((Counter(gold) & Counter(said)).values())
    return 2 * same / (len(gold) + len(said))


def squad(rows: Sequence[Row], answers: Sequence[str]) -> dict[str, Any]:
    """Mean F1 of a set; where it has both kinds of questions, exact match of each and F1 of those
    with an answer (of the others it is exact match)."""
    found: dict[str, Any] = {"f1": _mean_f1(rows, answers)}
    kinds = {
        kind: [(r, a) for r, a in zip(rows, answers, strict=True) if has_answer(r) == kind]
        for kind in (True, False)
    }
    if all(kinds.values()):
        for name, kind in (("has_answer", True), ("no_answer", False)):
            found[name] = FURTHER_METRICS[name].of([exact(*pair) for pair in kinds[kind]])
        found["f1_has_answer"] = _mean_f1(*zip(*kinds[True], strict=True))
    return found


def _mean_f1(rows: Sequence[Row], answers: Sequence[str]) -> float:
    return sum(f1(row, answer) for row, answer in zip(rows, answers, strict=True)) / len(rows)


EXACT_MATCH = Scorer(
    "exact-match", exact, fits=lambda row: bool(row.response.strip()), besides=squad
)
