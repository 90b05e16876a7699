"""Whether an answer depends on what shares its batch: some are asked for again, each alone.

Kernels order their sums by the shape of what they compute together, and where two next tokens are
nearly as likely another rounding takes the other one. In float32 on a CPU no answer of the embedded
world has changed; on a GPU, in half the bits, nobody promises it. So it is counted.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from raycib.config import EngineName, RowsSpec, digest
from raycib.evals.answers import Answers, answers_key, entry
from raycib.evals.engine import Engine, GenerationRequest
from raycib.store import Store
from raycib.store.kinds import ALONE

ONE_IN = 100
"""Of so many answers one is asked for again, at most."""
_FILE = "alone.json"


class Pick(NamedTuple):
    """A model's answer to one of the rows."""

    model_id: str
    rows: RowsSpec
    place: int


def picked(asked: Mapping[str, RowsSpec], most: int) -> list[Pick]:
    """Up to ``most`` of what models were asked: by their hashes, so that nobody can choose."""
    count = min(most, -(-sum(rows.num_rows for rows in asked.values()) // ONE_IN))
    models = sorted(asked)[:count]
    found = []
    for number, model_id in enumerate(models):
        rows, each = asked[model_id], count // len(models) + (number < count % len(models))
        places = Random(model_id).sample(range(rows.num_rows), min(each, rows.num_rows))
        found += [Pick(model_id, rows, place) for place in places]
    return found


def ask_alone(
    known: Answers,
    engine: Engine,
    tokenizer: object,
    folders: Mapping[str, Path | None],
    picks: Sequence[Pick],
) -> None:
    """Have an engine give each answer again, alone, and store them. ``folders`` are the models'
    adapters, None for the base."""
    key = _key(picks, engine.name)
    if known.store.get(ALONE, key) is not None:
        return
    rows = [known.rows(one.rows)[one.place] for one in picks]
    given = engine.alone(
        [
            GenerationRequest(
                str(number),
                known.ids(tokenizer, (row.prompt, row.system)),
                folders[one.model_id],
                one.rows.max_tokens,
            )
            for number, (one, row) in enumerate(zip(picks, rows, strict=True))
        ]
    )
    text = json.dumps([entry(tokenizer, one) for one in given])
    about = {"alone": [[one.model_id, one.place] for one in picks], "engine": engine.name}
    known.store.put_text(ALONE, key, _FILE, text, about)


def said_alone(store: Store, picks: Sequence[Pick], engine: EngineName) -> list[str] | None:
    """What was said alone, in the order of the picks; None where nobody asked."""
    record = store.get(ALONE, _key(picks, engine), only=(_FILE,))
    return [one["text"] for one in record.value(_FILE)] if record else None


def _key(picks: Sequence[Pick], engine: EngineName) -> str:
    asked = [[answers_key(one.model_id, one.rows, engine), one.place] for one in picks]
    return digest({"alone": 1, "asked": asked})
