"""Where rows come from: the embedded world, a file of one's own, or a data set of the hub."""

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raycib.data.formats import flat
from raycib.errors import UserError
from raycib.spec import RowsSpec, TaskSpec, digest

PROMPT_COLUMNS = (
    "prompt",
    "instruction",
    "question",
    "goal",
    "behavior",
    "Behavior",
    "instructions",
)
CONTEXT_COLUMNS = ("input", "context")
RESPONSE_COLUMNS = ("response", "output", "answer", "completion")
HELD_OUT_EVERY = 10
"""Of a file of one's own, every tenth row is held out of training."""
HELD_OUT_AT_MOST = 500


class Row(NamedTuple):
    """One prompt and its response ("" where none is known)."""

    prompt: str
    response: str
    system: str = ""
    """What a system turn before the prompt says; "" where there is none."""


def load_rows(source: str) -> list[Row]:
    """The rows at `source`, in a fixed order.

    `world:NAME` (a set of the embedded world), `FILE` (JSON, JSONL or CSV with named columns),
    `hub:DATASET:SPLIT`; `#train` and `#held-out` after either of the last two cut it in two, and
    `#first-N` after anything takes no more than N rows.
    Raises `UserError` for anything that cannot be read as rows.
    """
    whole, cut, count = source.rpartition("#first-")
    if cut and count.isdecimal() and int(count):
        return load_rows(whole)[: int(count)]
    if source.startswith("world:"):
        from raycib import world

        return [Row(r["prompt"], r["response"]) for r in world.rows(source.removeprefix("world:"))]
    name, _, part = source.partition("#")
    if name.startswith("hub:"):
        table = _hub_table(name.removeprefix("hub:"))
    else:
        table = _file_table(Path(os.path.expanduser(name)))
    rows = _to_rows(table, name)
    match part:
        case "":
            return rows
        case "train":
            held_out = _held_out(len(rows))
            return [row for number, row in enumerate(rows) if number not in held_out]
        case "held-out":
            if len(rows) < HELD_OUT_EVERY:
                raise UserError(
                    f"{name!r} has {len(rows)} rows, of which none is held out; a task needs at "
                    f"least {HELD_OUT_EVERY}"
                )
            return [rows[number] for number in sorted(_held_out(len(rows)))]
        case _:
            raise UserError(
                f"unknown part {part!r} of {name!r}; write #train, #held-out or #first-N"
            )


def _held_out(count: int) -> set[int]:
    return set(range(HELD_OUT_EVERY - 1, count, HELD_OUT_EVERY)[:HELD_OUT_AT_MOST])


def fingerprint(rows: Sequence[Row]) -> str:
    """sha256 over prompts and responses, and system turns where there are some, in order."""
    return digest([list(row) if row.system else list(row[:2]) for row in rows])


def describe_task(name: str, source: str, max_length: int) -> TaskSpec:
    """The spec of the training rows at `source`; every row must have a response."""
    rows = load_rows(source)
    if missing := [number for number, row in enumerate(rows, 1) if not row.response.strip()]:
        raise UserError(
            f"{source!r} has {len(missing)} rows without a response (the first is row "
            f"{missing[0]}); a task needs one in every row, under one of {RESPONSE_COLUMNS}"
        )
    return TaskSpec(
        name=name, source=source, rows=fingerprint(rows), num_rows=len(rows), max_length=max_length
    )


def describe_rows(name: str, source: str, max_length: int, max_tokens: int) -> RowsSpec:
    """The spec of the rows at `source`, to ask or to measure on."""
    rows = load_rows(source)
    return RowsSpec(
        name=name,
        source=source,
        rows=fingerprint(rows),
        num_rows=len(rows),
        max_length=max_length,
        max_tokens=max_tokens,
    )


def rows_of(spec: TaskSpec | RowsSpec) -> list[Row]:
    """The rows of a spec, checked against its fingerprint."""
    rows = load_rows(spec.source)
    if (found := fingerprint(rows)) != spec.rows:
        raise UserError(
            f"{spec.source!r} changed since the plan was made ({found[:12]} instead of "
            f"{spec.rows[:12]}); start the sweep again"
        )
    return rows


def _file_table(path: Path) -> list[Any]:
    where = repr(str(path))
    try:
        if not path.is_file():
            raise UserError(f"no data file at {where}; give a .json, .jsonl or .csv file")
        text = path.read_bytes().decode("utf-8-sig")  # read_text would rewrite line ends
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text (byte {error.start}); convert it") from error
    except OSError as error:
        raise UserError(f"{where} cannot be read: {error.strerror}; check the path") from error
    match path.suffix.lower():
        case ".csv":
            return _csv(text, where)
        case ".jsonl":
            return [
                _json(line, f"{where}, line {number}")
                for number, line in enumerate(text.split("\n"), 1)
                if line.strip()
            ]
        case ".json":
            return _listed(_json(text, where), where)
        case suffix:
            raise UserError(f"{where} ends in {suffix!r}; give a .json, .jsonl or .csv file")


def _csv(text: str, where: str) -> list[Any]:
    csv.field_size_limit(sys.maxsize)  # a response may be longer than the default 128 kB
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        return list(reader)
    except csv.Error as error:
        raise UserError(
            f"{where}, line {reader.reader.line_num} is not CSV: {error}; mend or convert it"
        ) from error


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of too many digits
        raise UserError(f"{where} is not JSON: {error}; mend or convert it") from error


def _listed(table: Any, where: str) -> list[Any]:
    """Rows of a JSON file: a list of them, alone or under one name, or columns by name."""
    if isinstance(table, list):
        return table
    columns = {}
    if isinstance(table, dict):  # {"instructions": [...], "inputs": []}
        columns = {name: v for name, v in table.items() if isinstance(v, list) and v}
    match list(columns.values()):
        case []:
            raise UserError(f"{where} holds {type(table).__name__}, not a list of rows; give one")
        case [rows] if isinstance(rows[0], dict):
            return rows
        case lists if len({len(values) for values in lists}) > 1:
            lengths = {name: len(values) for name, values in columns.items()}
            raise UserError(f"{where} has columns of unequal length, {lengths}; mend it")
        case lists:
            return [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]


def _hub_table(name: str) -> list[Any]:
    import datasets

    path, _, split = name.partition(":")
    config: tuple[str, ...] = ()
    if "@" in path:  # DATASET@CONFIG, such as openai/gsm8k@main
        path, _, chosen = path.partition("@")
        config = (chosen,)
    try:
        return list(datasets.load_dataset(path, *config, split=split or "train"))
    except Exception as error:  # the hub client raises a dozen kinds; the user mends them alike
        reason = str(error).splitlines()[0]
        raise UserError(f"data set {name!r} could not be loaded: {reason}") from error


def _to_rows(table: list[Any], where: str) -> list[Row]:
    if not table:
        raise UserError(f"{where!r} has no rows; give at least one prompt with its response")
    rows: list[Row] = []
    for number, entry in enumerate(table, 1):
        if not isinstance(entry, dict):
            raise UserError(
                f"{where!r}, row {number}: found {str(entry)[:40]!r}, not named columns"
            )
        entry = flat(entry)
        prompt = _pick(entry, PROMPT_COLUMNS)
        if not prompt:
            columns = sorted(str(column) for column in entry)
            raise UserError(
                f"{where!r}, row {number}: no prompt in columns {columns}; "
                f"name one of them {PROMPT_COLUMNS}"
            )
        context = _pick(entry, CONTEXT_COLUMNS)
        row = Row("\n\n".join(filter(None, [prompt, context])), _pick(entry, RESPONSE_COLUMNS))
        try:
            "".join(row).encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{where!r}, row {number}: half of a character that JSON writes as two "
                f"({error.object[error.start]!r}), which no tokenizer reads; remove it"
            ) from error
        rows.append(row)
    return rows


def _pick(entry: dict[str, Any], names: Sequence[str]) -> str:
    for name in names:
        if isinstance(value := entry.get(name), str) and value.strip():
            return value.strip()
    return ""
