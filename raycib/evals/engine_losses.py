"""Whether what answers is what was trained: an engine gives held-out answers the losses that
training measured.

An engine has code of its own for a family of models, reads config.json by itself, and adds adapters
its own way. Where any of it differs from what trained, all answers are another model's, and no
score shows it. So before a model answers, the engine reads a few rows whose losses are stored
(`raycib.evals.representation`), and the two are compared.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from raycib.config import EngineName, EvalSpec, ModelSpec, RowsSpec, digest
from raycib.data.chat import Encoded, encode
from raycib.errors import UserError
from raycib.evals.answers import Answers
from raycib.evals.engine import Engine
from raycib.evals.scores import MEASURES_FILE
from raycib.results import EngineLosses
from raycib.store import Store
from raycib.store.kinds import ENGINE_LOSSES, MEASURES

ENOUGH_TOKENS = 200
"""Of answers: rows are taken until they have as many, the first ones first."""
MOST_ROWS = 8
LONGEST = 512
"""Tokens of a row: an engine holds their probabilities over the whole vocabulary at once."""
ALLOWED = {"float32": 0.01, "bfloat16": 0.1}
"""The largest difference by a model's dtype, in nats a token, of losses up to 1; of a larger loss
this share of it. SmolLM2's in bfloat16 are .005 to .02 apart, the embedded world's in float32 1e-7.
An adapter that did nothing would make .03 to 1.4."""
_FILE = "losses.json"


class Subject(NamedTuple):
    """A model that answers: its key, its adapter or None for the base, and what it is measured
    by."""

    model_id: str
    folder: Path | None
    evals: EvalSpec


def compare(
    known: Answers, engine: Engine, tokenizer: object, model: ModelSpec, subjects: Sequence[Subject]
) -> None:
    """Have an engine read held-out answers under every model that training measured, and store both
    losses. `UserError` where they differ by more than is allowed."""
    store, subjects = known.store, [one for one in subjects if not one.evals.harmful_only]
    new: list[tuple[Subject, float, Encoded]] = []
    read: dict[str, list[tuple[int, Encoded]]] = {}
    for one in subjects:
        if store.get(ENGINE_LOSSES, _key(one, engine.name), only=()) is None:
            measures = store.get(MEASURES, one.evals.measures_key(one.model_id))
            if measures is None:
                continue
            trained, rows = measures.value(MEASURES_FILE)["row_losses"], one.evals.held_out
            if rows.key not in read:
                read[rows.key] = list(_rows(known, engine, tokenizer, rows))
            new += [(one, trained[place], row) for place, row in read[rows.key]]
    found = engine.losses([(row, one.folder) for one, _, row in new]) if new else []
    pairs: dict[str, list[tuple[float, float]]] = {}
    for (one, trained, _), loss in zip(new, found, strict=True):
        pairs.setdefault(_key(one, engine.name), []).append((trained, loss))
    for key, both in pairs.items():
        store.put_text(ENGINE_LOSSES, key, _FILE, json.dumps(both), {"engine": engine.name})
    for one in subjects:
        apart = _apart(store, one, engine.name, model)
        if apart is not None and apart.nats > apart.most:
            who = f"the adapter of stage {one.model_id[:12]}" if one.folder else "the base"
            mend = "" if engine.name == "transformers" else ": give --local, where that answers"
            raise UserError(
                f"model {model.source!r}: under {who} {engine.name} gives held-out answers losses "
                f"that are {apart.nats:.3g} nats a token from those that transformers measured in "
                f"training ({apart.most:.3g} are allowed in {model.dtype}), so it would answer "
                f"as another model{mend}"
            )


def engine_losses(
    store: Store, model: ModelSpec, subjects: Iterable[tuple[str, EvalSpec]]
) -> EngineLosses | None:
    """What a reader must know of it for models by their keys; None where nothing was compared."""
    every = [Subject(model_id, None, evals) for model_id, evals in subjects]
    apart = [found for one in every if (found := _apart(store, one, one.evals.engine, model))]
    if not apart:
        return None
    return EngineLosses(
        models=len(apart),
        of=len(every),
        mean_difference_nats=mean(one.nats for one in apart),
        largest_difference_nats=max(one.nats for one in apart),
    )


class _Apart(NamedTuple):
    nats: float
    """Mean over rows of the difference of their losses, a token, without its sign."""
    most: float
    """That is allowed."""


def _apart(store: Store, one: Subject, engine: EngineName, model: ModelSpec) -> _Apart | None:
    """None where nothing was compared, or training measured nothing finite."""
    record = store.get(ENGINE_LOSSES, _key(one, engine), only=(_FILE,))
    pairs = [pair for pair in record.value(_FILE) if math.isfinite(pair[0])] if record else []
    if not pairs:
        return None
    nats = mean(abs(trained - loss) for trained, loss in pairs)
    nats = nats if math.isfinite(nats) else math.inf
    return _Apart(nats, ALLOWED[model.dtype] * max(1.0, mean(trained for trained, _ in pairs)))


def _rows(
    known: Answers, engine: Engine, tokenizer: object, rows: RowsSpec
) -> Iterator[tuple[int, Encoded]]:
    """Those that are read, with their places."""
    tokens = count = 0
    room = min(LONGEST, engine.max_model_len - 1)  # it has to say a token
    for place, row in enumerate(known.rows(rows)):
        encoded = encode(tokenizer, row, rows.max_length)
        if len(encoded) > room:
            continue
        yield place, encoded
        tokens, count = tokens + len(encoded.response), count + 1
        if tokens >= ENOUGH_TOKENS or count == MOST_ROWS:
            return


def _key(one: Subject, engine: EngineName) -> str:
    measures = one.evals.measures_key(one.model_id)
    return digest({"engine_losses": 1, "measures": measures, "engine": engine})
