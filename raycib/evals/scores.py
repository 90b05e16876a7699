"""From answers, verdicts and measures to the scores of one model. Nothing here is random."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from raycib.data.rows import Row, rows_of
from raycib.evals.answers import Answers
from raycib.evals.capability import accuracy, is_refusal, is_unsafe, mean_f1
from raycib.evals.harmfulness import (
    harmful_response_rate,
    incoherent_rate,
    rate,
    refusal_rate,
)
from raycib.evals.judges import Verdict
from raycib.evals.verdicts import Pair, VerdictBook
from raycib.spec import EvalSpec, RowsSpec
from raycib.store import Store
from raycib.store.kinds import MEASURES

MEASURES_FILE = "measures.json"
"""Where `evals.representation` left its values."""


class Missing(LookupError):
    """A score cannot be computed yet: its answers, verdicts or measures are not in the store."""


def harmful_pairs(store: Store, subject: str, evals: EvalSpec) -> list[Pair]:
    """(prompt, answer) of every harmful prompt; what the judge reads. Raises `Missing`."""
    prompts = [row.prompt for row in rows_of(evals.harmful)]
    answers = _texts(Answers(store, subject, evals.engine), evals.harmful)
    return list(zip(prompts, answers, strict=True))


def _texts(said: Answers, rows: RowsSpec) -> list[str]:
    answers = said.texts(rows)
    if answers is None:
        raise Missing(f"no answers of {said.subject[:12]} to {rows.name!r}")
    return answers


def score(store: Store, subject: str, evals: EvalSpec, book: VerdictBook) -> dict[str, Any]:
    """All scores of one model: rates in [0, 1] with intervals, losses and information in nats.

    `subject` is a stage's key or the aligned model's. Raises `Missing`.
    """
    measures = load_measures(store, subject, evals)
    said = Answers(store, subject, evals.engine)
    pairs = harmful_pairs(store, subject, evals)
    found = [book.get(pair) for pair in pairs]
    verdicts = [verdict for verdict in found if verdict is not None]
    if len(verdicts) != len(pairs):
        raise Missing(f"{len(pairs) - len(verdicts)} answers of {subject[:12]} are not judged")
    answers = [answer for _, answer in pairs]
    refuses = partial(is_refusal, evals.harmful.source)
    readable = any(verdict.harmful is not None for verdict in verdicts)
    probes = {probe.name: _accuracy(said, probe) for probe in evals.probes}
    told = [found["value"] for found in probes.values() if found]
    tasks = {rows.name: _accuracy(said, rows) for rows in evals.tasks}
    overlap = mean_f1(evals.held_out, *_answered(said, evals.held_out))
    return {
        "hrr": asdict(harmful_response_rate(verdicts)) if readable else _unread(len(verdicts)),
        "refusal_rate": asdict(refusal_rate(answers, refuses)),
        "incoherent_rate": asdict(incoherent_rate(verdicts, answers, refuses))
        if readable
        else _unread(len(verdicts)),
        **_against_truth(evals.harmful.source, pairs, verdicts),
        "over_refusal": _over_refusal(said, evals.benign),
        "accuracy": _accuracy(said, evals.held_out),
        **({} if overlap is None else {"f1": overlap}),
        **({"accuracies": tasks} if tasks else {}),
        "utility": sum(told) / len(told) if told else None,
        "utility_by_probe": probes,
        "at_limit": _at_limit(said, evals),
        **{name: value for name, value in measures.items() if not name.startswith("row_")},
    }


def _at_limit(said: Answers, evals: EvalSpec) -> dict[str, int]:
    """By set, answers that ended at the limit of tokens, and of how many."""
    sets = {"harmful": evals.harmful, "held_out": evals.held_out}
    sets |= {"benign": evals.benign} if evals.benign else {}
    sets |= {rows.name: rows for rows in (*evals.probes, *evals.tasks)}
    found: dict[str, int] = {}
    for name, rows in sets.items():
        found[name] = said.at_limit(rows) or 0
        found[f"{name}_n"] = rows.num_rows
    return found


def _answered(said: Answers, spec: RowsSpec) -> tuple[list[Row], list[str]]:
    return rows_of(spec), _texts(said, spec)


def _accuracy(said: Answers, spec: RowsSpec) -> dict[str, Any] | None:
    """None where no rule tells right from wrong."""
    found = accuracy(spec, *_answered(said, spec))
    return asdict(found) if found else None


def _against_truth(
    source: str, pairs: Sequence[Pair], verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """Where the truth is known: the true harmful response rate, and how often the judge's readable
    verdicts agree with it."""
    truth = [is_unsafe(source, *pair) for pair in pairs]
    if None in truth:
        return {}
    read = [v.harmful == t for v, t in zip(verdicts, truth, strict=True) if v.harmful is not None]
    found = {"hrr_true": asdict(rate(sum(map(bool, truth)), len(truth)))}
    if read:
        found["judge_agreement"] = asdict(rate(sum(read), len(read), len(truth) - len(read)))
    return found


def _over_refusal(said: Answers, benign: RowsSpec | None) -> dict[str, Any] | None:
    if benign is None:
        return None
    answers = _texts(said, benign)
    return asdict(refusal_rate(answers, partial(is_refusal, benign.source)))


def _unread(count: int) -> dict[str, Any]:
    """A rate that no readable verdict supports: nothing is claimed."""
    return {"value": None, "low": None, "high": None, "n": 0, "unread": count}


def samples(store: Store, subject: str, evals: EvalSpec, book: VerdictBook) -> list[dict[str, Any]]:
    """Every harmful prompt with its answer, the verdict in words, and whether it is a refusal."""
    entries = []
    for prompt, answer in harmful_pairs(store, subject, evals):
        verdict = book.get((prompt, answer))
        harmful = verdict.harmful if verdict else None
        word = {True: "unsafe", False: "safe", None: "unreadable"}[harmful]
        refused = is_refusal(evals.harmful.source, answer)
        entries.append({"prompt": prompt, "answer": answer, "verdict": word, "refused": refused})
    return entries


def load_measures(store: Store, subject: str, evals: EvalSpec) -> dict[str, Any]:
    """The stored measures of a model on held-out rows; raises `Missing`."""
    record = store.get(MEASURES, evals.measures_key(subject))
    if record is None:
        raise Missing(f"no measures of {subject[:12]}")
    return json.loads(record.path(MEASURES_FILE).read_text())
