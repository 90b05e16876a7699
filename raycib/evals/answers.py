"""Generated answers in the store: one record for each (model, rows)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raycib.data.chat import encode_prompt, said
from raycib.data.rows import rows_of
from raycib.evals.generate import Answer, Engine, GenerationRequest
from raycib.spec import EngineName, RowsSpec, digest
from raycib.store import Store
from raycib.store.kinds import GENERATIONS

_FILE = "answers.json"


def answers_key(subject: str, rows: RowsSpec, engine: EngineName) -> str:
    """Of an engine's greedy answers of a model (a stage's key, or the aligned model's) to
    `rows`."""
    parts = {"answers": 1, "subject": subject, "rows": rows.identity(), "greedy": True}
    return digest(parts if engine == "vllm" else parts | {"engine": engine})


class Answers(NamedTuple):
    """What a model said, as the store has it."""

    store: Store
    subject: str
    engine: EngineName

    def texts(self, rows: RowsSpec) -> list[str] | None:
        """The answers in the order of the rows, or None where there are none yet."""
        entries = self._entries(rows)
        return None if entries is None else [entry["text"] for entry in entries]

    def at_limit(self, rows: RowsSpec) -> int | None:
        """Answers that came to no end of their own within `max_tokens`, or None where there are no
        answers yet."""
        entries = self._entries(rows)
        return (
            None
            if entries is None
            else sum(entry["finish_reason"] == "length" for entry in entries)
        )

    def _entries(self, rows: RowsSpec) -> list[dict[str, Any]] | None:
        record = self.store.get(GENERATIONS, answers_key(self.subject, rows, self.engine))
        return None if record is None else json.loads(record.path(_FILE).read_text())


def generate_answers(
    store: Store,
    engine: Engine,
    tokenizer: object,
    subjects: Sequence[tuple[str, Path | None]],
    asked: Sequence[RowsSpec],
) -> int:
    """Ask every subject (key, adapter folder or None for the base) every set of rows, and store
    the answers; returns how many were generated. A prompt that stands in several sets is asked
    once a subject."""
    sets = {spec.key: (spec, [(r.prompt, r.system) for r in rows_of(spec)]) for spec in asked}
    requests: dict[tuple[str, tuple[str, str], int], GenerationRequest] = {}
    missing = [
        (subject, name)
        for subject, _ in subjects
        for name, (spec, _) in sets.items()
        if store.get(GENERATIONS, answers_key(subject, spec, engine.name)) is None
    ]
    folders = dict(subjects)
    encoded: dict[tuple[str, str], tuple[int, ...]] = {}
    for subject, name in missing:
        spec, prompts = sets[name]
        for prompt in prompts:
            if prompt not in encoded:
                encoded[prompt] = tuple(encode_prompt(tokenizer, *prompt))
            requests.setdefault(
                (subject, prompt, spec.max_tokens),
                GenerationRequest(
                    str(len(requests)), encoded[prompt], folders[subject], spec.max_tokens
                ),
            )
    answers = dict(zip(requests, engine.answer(list(requests.values())), strict=True))
    for subject, name in missing:
        spec, prompts = sets[name]
        given = [answers[subject, p, spec.max_tokens] for p in prompts]
        _put(store, subject, spec, engine.name, [_entry(tokenizer, one) for one in given])
    return len(requests)


def _entry(tokenizer: object, given: Answer) -> dict[str, Any]:
    """What is kept of an answer: `text` is judged and scored; reasoning before it is read by
    nobody, and only kept."""
    found = said(tokenizer, given.text, given.token_ids)
    reason = "stop" if found.ended else given.finish_reason
    entry = {"text": found.answer, "tokens": len(given.token_ids), "finish_reason": reason}
    return entry | ({"reasoning": found.reasoning} if found.reasoning else {})


def _put(
    store: Store, subject: str, rows: RowsSpec, engine: EngineName, entries: list[dict[str, Any]]
) -> None:
    if len(entries) != rows.num_rows:
        raise ValueError(f"{len(entries)} answers to {rows.num_rows} rows of {rows.name!r}")

    def write(folder: Path) -> None:
        (folder / _FILE).write_text(json.dumps(entries, indent=0))

    about = {"subject": subject, "rows": rows.model_dump(mode="json"), "engine": engine}
    store.put(GENERATIONS, answers_key(subject, rows, engine), write, about)
