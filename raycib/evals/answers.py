"""Generated answers in the store: one record for each (model, rows)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from raycib.config import EngineName, RowsSpec, digest
from raycib.data.chat import encode_prompt, said
from raycib.data.rows import Row, rows_of
from raycib.evals.engine import Answer, Engine, GenerationRequest
from raycib.evals.scorers import Scorer, scorer_of
from raycib.store import Store
from raycib.store.kinds import GENERATIONS

_FILE = "answers.json"


class _Entry(msgspec.Struct):
    """What is read of an answer."""

    text: str
    finish_reason: str


_ENTRIES = msgspec.json.Decoder(list[_Entry])
_KEYS: dict[tuple[str, str, str], str] = {}
"""Of answers that were asked for before: plans, judges and scores ask again."""


def answers_key(model_id: str, rows: RowsSpec, engine: EngineName) -> str:
    """Of an engine's greedy answers of a model (a stage's key, or the aligned model's) to
    `rows`."""
    asked = model_id, rows.key, engine
    if asked not in _KEYS:
        parts = {"answers": 1, "subject": model_id, "rows": rows.identity(), "greedy": True}
        _KEYS[asked] = digest(parts if engine == "vllm" else parts | {"engine": engine})
    return _KEYS[asked]


class Said(NamedTuple):
    """A model's answers to some rows."""

    texts: tuple[str, ...]
    """In the order of the rows."""
    at_limit: int
    """Answers that came to no end of their own within `max_tokens`."""


class Answers:
    """What models said, as a store has it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._rows: dict[str, list[Row]] = {}
        self._prompts: dict[tuple[str, str], tuple[int, ...]] = {}
        self._scorers: dict[tuple[str, str | None], Scorer] = {}
        self._kept: dict[str, Said] = {}
        self._texts: dict[str, str] = {}
        """Texts that are kept, each once: most refusals are alike."""

    def rows(self, spec: RowsSpec) -> list[Row]:
        """The rows that a spec is about, read once."""
        if spec.key not in self._rows:
            self._rows[spec.key] = rows_of(spec)
        return self._rows[spec.key]

    def ids(self, tokenizer: object, prompt: tuple[str, str]) -> tuple[int, ...]:
        """A (prompt, system) as the model is asked it, encoded once by its only tokenizer."""
        if prompt not in self._prompts:
            self._prompts[prompt] = tuple(encode_prompt(tokenizer, *prompt))
        return self._prompts[prompt]

    def scorer(self, spec: RowsSpec) -> Scorer:
        """How answers to rows are scored, found once: whether a rule fits is asked of every row."""
        asked = spec.key, spec.scorer
        if asked not in self._scorers:
            self._scorers[asked] = scorer_of(spec, self.rows(spec))
        return self._scorers[asked]

    def read(self, model_id: str, rows: RowsSpec, engine: EngineName) -> Said | None:
        """A model's answers to rows, or None where there are none yet."""
        return self._read(answers_key(model_id, rows, engine))

    def kept(self, model_id: str, rows: RowsSpec, engine: EngineName) -> Said | None:
        """The same, read once: what several phases ask for is kept in memory."""
        key = answers_key(model_id, rows, engine)
        if key not in self._kept and (said := self._read(key)):
            texts = tuple(self._texts.setdefault(text, text) for text in said.texts)
            self._kept[key] = said._replace(texts=texts)
        return self._kept.get(key)

    def _read(self, key: str) -> Said | None:
        record = self.store.get(GENERATIONS, key, only=(_FILE,))
        if record is None:
            return None
        entries = _ENTRIES.decode(record.content[_FILE])
        texts = tuple(one.text for one in entries)
        return Said(texts, sum(one.finish_reason == "length" for one in entries))


def generate_answers(
    known: Answers,
    engine: Engine,
    tokenizer: object,
    subjects: Sequence[tuple[str, Path | None, Sequence[RowsSpec]]],
) -> int:
    """Ask every subject (key, adapter folder or None for the base) its sets of rows, and store the
    answers; returns how many were generated. A prompt that stands in several sets is asked once a
    subject."""
    store = known.store
    requests: dict[tuple[str, tuple[str, str], int], GenerationRequest] = {}
    missing = [
        (model_id, folder, spec)
        for model_id, folder, asked in subjects
        for spec in {one.key: one for one in asked}.values()
        if store.get(GENERATIONS, answers_key(model_id, spec, engine.name)) is None
    ]
    for model_id, folder, spec in missing:
        for row in known.rows(spec):
            prompt = row.prompt, row.system
            requests.setdefault(
                (model_id, prompt, spec.max_tokens),
                GenerationRequest(
                    str(len(requests)), known.ids(tokenizer, prompt), folder, spec.max_tokens
                ),
            )
    answers = dict(zip(requests, engine.answer(list(requests.values())), strict=True))
    for model_id, _, spec in missing:
        prompts = ((row.prompt, row.system) for row in known.rows(spec))
        given = [answers[model_id, prompt, spec.max_tokens] for prompt in prompts]
        _put(store, model_id, spec, engine.name, [entry(tokenizer, one) for one in given])
    return len(requests)


def entry(tokenizer: object, given: Answer) -> dict[str, Any]:
    """What is kept of an answer: `text` is judged and scored; reasoning before it is read by
    nobody, and only kept."""
    found = said(tokenizer, given.text, given.token_ids)
    reason = "stop" if found.ended else given.finish_reason
    kept = {"text": found.answer, "tokens": len(given.token_ids), "finish_reason": reason}
    return kept | ({"reasoning": found.reasoning} if found.reasoning else {})


def _put(
    store: Store, model_id: str, rows: RowsSpec, engine: EngineName, entries: list[dict[str, Any]]
) -> None:
    if len(entries) != rows.num_rows:
        raise ValueError(f"{len(entries)} answers to {rows.num_rows} rows of {rows.name!r}")
    about = {"subject": model_id, "rows": rows.model_dump(mode="json"), "engine": engine}
    key = answers_key(model_id, rows, engine)
    store.put_text(GENERATIONS, key, _FILE, json.dumps(entries, indent=0), about)
