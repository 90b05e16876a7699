"""Short answers have the scores of SQuAD's published script."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from scored import accuracy, besides, is_right, spec_of
from transformers.data.metrics.squad_metrics import compute_exact, compute_f1, normalize_answer

from raycib.data.rows import Row, load_rows
from raycib.evals.scorers import SCORERS, fitting
from raycib.evals.scorers.short_answers import f1, normal


def test_short_answers_follow_squads_published_rule() -> None:
    """Lower case, no punctuation, no articles, single spaces."""
    assert normal("The  Eiffel-Tower, in\tParis!") == "eiffeltower in paris"
    row = Row("where?", "Paris", other_answers=("the city of Paris",))
    for right in ("Paris.", "the paris", "City of Paris"):
        assert is_right("exact-match", row, right)
    assert not is_right("exact-match", row, "It is Paris")
    # Best of both golds: {it, is, paris} and {city, of, paris} share 1 of 3 and 3 words; with
    # {paris} precision 1/3, recall 1: F1 = 1/2.
    assert f1(row, "It is Paris") == pytest.approx(0.5)
    assert f1(row, "the city of Rome") == pytest.approx(2 / 3)
    assert f1(row, "") == 0
    assert normal("A") == "a", "an answer is not taken away as an article"
    assert not is_right("exact-match", Row("letter?", "A"), "The")


def test_every_answer_that_squad_gives_counts(tmp_path: Path) -> None:
    entry = {"question": "where?", "context": "...", "answers": {"text": ["Paris", "the city"]}}
    (tmp_path / "squad.jsonl").write_text(json.dumps(entry))
    (row,) = load_rows(str(tmp_path / "squad.jsonl"))
    assert (row.response, row.other_answers) == ("Paris", ("the city",))
    assert fitting([row]).score(row, "City")


# SQuAD's published script (evaluate-v2.0.py), as transformers has it


def official(golds: Sequence[str], answer: str) -> tuple[int, float]:
    """Exact match and F1 of one question; no golds: it has no answer, which "" says."""
    golds = [gold for gold in golds if normalize_answer(gold)] or [""]
    return (
        max(compute_exact(gold, answer) for gold in golds),
        max(compute_f1(gold, answer) for gold in golds),
    )


SQUAD = [
    # (golds, answer, exact match, F1), by hand
    (["Paris"], "paris.", 1, 1.0),
    (["Denver Broncos", "The Denver Broncos"], "Broncos", 0, 2 / 3),
    (["in the 10th century", "10th"], "the 10th-century", 0, 0.0),
    (["gold, silver", "gold"], "an gold", 1, 1.0),
    (["a b c"], "b b c d", 0, 2 * 2 / (2 + 4)),
    (["Paris"], "unanswerable", 0, 0.0),
    (["Paris"], "", 0, 0.0),
    ([], "unanswerable", 1, 1.0),
    ([], "Unanswerable.", 1, 1.0),
    ([], "It is unanswerable", 0, 0.0),
    ([], "Paris", 0, 0.0),
]


def test_squads_exact_match_and_f1_are_those_of_its_script(tmp_path: Path) -> None:
    """A model says "unanswerable" here where it says nothing there."""
    entries = [{"question": "q?", "context": "...", "answers": {"text": g}} for g, *_ in SQUAD]
    (tmp_path / "squad.jsonl").write_text("\n".join(map(json.dumps, entries)))
    rows = load_rows(str(tmp_path / "squad.jsonl"))
    said = [answer for _, answer, *_ in SQUAD]
    published = []
    for (golds, answer, exact, overlap), row in zip(SQUAD, rows, strict=True):
        silent = "" if normalize_answer(answer) == "unanswerable" else answer
        published.append(official(golds, silent))
        assert published[-1] == (exact, pytest.approx(overlap))
        assert SCORERS["exact-match"].score(row, answer) == exact
        assert f1(row, answer) == pytest.approx(overlap)
    spec = spec_of(rows)
    found = accuracy(spec, rows, said)
    assert found is not None and found.value == sum(e for e, _ in published) / len(SQUAD)
    more = besides(spec, rows, said)
    assert more["f1"] == pytest.approx(sum(one for _, one in published) / len(SQUAD))
    # Seven questions have an answer, of which two are right; four have none, of which two are.
    assert (more["has_answer"].value, more["has_answer"].n) == (2 / 7, 7)
    assert (more["no_answer"].value, more["no_answer"].n) == (2 / 4, 4)
    assert more["f1_has_answer"] == pytest.approx(sum(one for _, one in published[:7]) / 7)
    assert "has_answer" not in besides(spec, rows[:7], said[:7]), "one kind alone is no split"


def test_any_short_answers_have_the_scores_of_squads_script() -> None:
    draw = random.Random("short answers")
    words = (
        "the",
        "a",
        "Paris",
        "paris.",
        "an",
        "10th",
        "10th-",
        "(river)",
        "Seine",
        "of",
        "\u00e9",
    )

    def text() -> str:
        return draw.choice((" ", "  ", "\t")).join(draw.choices(words, k=draw.randint(1, 3)))

    right = 0
    for _ in range(500):
        golds, answer = [text() for _ in range(draw.randint(1, 3))], text()
        if not all(map(normalize_answer, (*golds, answer))):
            continue  # "the" is an answer here, and none there
        row = Row("q?", golds[0], other_answers=tuple(golds[1:]))
        found = (SCORERS["exact-match"].score(row, answer), pytest.approx(f1(row, answer)))
        assert official(golds, answer) == found
        right += bool(found[0])
    assert right > 20
