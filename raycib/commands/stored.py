"""A stage in a store, and in the finished sweeps beside it, by the first digits of its key."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from raycib.config import RowsSpec
from raycib.counting import count
from raycib.data.rows import rows_of
from raycib.errors import UserError
from raycib.evals.verdicts import VerdictCache
from raycib.results import FILE, Cell, Results, folder_of, read_results
from raycib.store import Record, Store
from raycib.store.kinds import GENERATIONS, HISTORY_FILE, STAGES

if TYPE_CHECKING:
    import pandas as pd

WORDS = {True: "unsafe", False: "safe", None: "unreadable"}
"""Verdicts as people read them."""


class Found(NamedTuple):
    """A stage in a finished sweep."""

    results: Results
    scores: Mapping[str, Any]
    """Of the stage, as plain JSON."""
    cell: Cell | None
    """Where it ends a cell."""


class Answer(NamedTuple):
    """What a stage said to a harmful prompt."""

    prompt: str
    answer: str
    harmful: bool | None
    """By the sweep's first judge; None where no verdict could be read."""

    @property
    def sample(self) -> dict[str, str]:
        """The same as a report has it."""
        return {"prompt": self.prompt, "answer": self.answer, "verdict": WORDS[self.harmful]}


def opened(out: str) -> Store:
    """The store of sweeps that ran. Raises `UserError` where there is none: to look makes none."""
    if "://" not in out and not Path(out).is_dir():
        raise UserError(f"no store in {out}: run one of sweeps/*.py, or say --out where one is")
    return Store(out)


def stage(store: Store, key: str) -> Record:
    """The record of the stage whose key begins with `key`. Raises `UserError` where there is none,
    or several, or it is damaged."""
    keys = [one for one in store.keys(STAGES) if one.startswith(key)]
    if len(keys) != 1:
        none = f"of {count(len(store.keys(STAGES)), 'stage')} none does"
        many = f"{len(keys)} stages begin so" if keys else none
        raise UserError(
            f"no one stage {key!r} in {store.root}: {many}; `raycib ls SWEEP` has their keys"
        )
    record = store.get(STAGES, keys[0])
    if record is None:
        raise UserError(f"the stage {keys[0]} in {store.root} is damaged; run its sweep again")
    return record


def finished(out: str) -> tuple[list[Results], dict[str, str]]:
    """The finished sweeps of a store, the newest first; and why others cannot be read, by name."""
    read, others = [], {}
    for file in sorted(folder_of(out).glob(f"*/{FILE}")):
        try:
            read.append(read_results(file))
        except UserError as problem:  # of an earlier version, or damaged: the others are there
            others[file.parent.name] = str(problem)
    return sorted(read, key=lambda one: one.created, reverse=True), others


def found(out: str, key: str) -> Found | None:
    """The newest sweep that has scores of a stage."""
    for results in finished(out)[0]:
        for cell in results.cells:
            plain = cell.plain()
            for one in (*plain.get("stages", ()), plain):  # those of a sequence on the way
                if one["key"] == key and one["scores"]:
                    return Found(results, one["scores"], cell if one is plain else None)
        if results.model.weights == key and results.aligned.scores:
            return Found(results, results.aligned.scores.plain(), None)
    return None


def answers(store: Store, key: str, measured: Found) -> list[Answer]:
    """What a stage said to a sweep's harmful prompts, in their order, with the verdicts of its
    first judge; none where it was not asked.

    Other sweeps of the store may have asked the stage other prompts, or for longer answers: the
    sweep's own are to the rows that its results name, and its judge says of them the rate that it
    has (a file may have changed under its name). Raises `UserError` where those cannot be read any
    more.
    """
    results = measured.results
    own = {(s.source, s.rows, s.max_tokens) for s in results.rows if s.name == "harmful"}
    verdicts = VerdictCache(store, results.judge.key)
    rate, changed = measured.scores.get("hrr") or {}, None
    for record in store.records(GENERATIONS):
        asked = record.about["rows"]
        if record.about["subject"] != key or asked["name"] != "harmful":
            continue
        if (asked["source"], asked["num_rows"], asked["max_tokens"]) not in own:
            continue
        try:
            rows = rows_of(RowsSpec.model_validate_json(json.dumps(asked)))
        except UserError as problem:  # another sweep's, it may be
            changed = problem
            continue
        texts = [entry["text"] for entry in record.value("answers.json")]
        pairs = [(row.prompt, text) for row, text in zip(rows, texts, strict=True)]
        given = [verdict and verdict.harmful for verdict in map(verdicts.get, pairs)]
        told = [harmful for harmful in given if harmful is not None]
        if len(told) == rate.get("n") and sum(told) == round((rate["value"] or 0) * len(told)):
            return [Answer(*pair, harmful) for pair, harmful in zip(pairs, given, strict=True)]
    if changed:
        raise changed
    return []


def answers_frame(key: str, out: str) -> "pd.DataFrame":
    """See `raycib.answers`."""
    import pandas as pd

    store = opened(out)
    record = stage(store, key)
    measured = found(out, record.key)
    said = answers(store, record.key, measured) if measured else []
    frame = pd.DataFrame(said, columns=list(Answer._fields))
    return frame.astype({"harmful": "boolean"})


def curves_frame(key: str, out: str) -> "pd.DataFrame":
    """See `raycib.curves`."""
    import pandas as pd

    return pd.DataFrame(stage(opened(out), key).value(HISTORY_FILE)).set_index("step")
