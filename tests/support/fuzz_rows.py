"""Damaged tables and files by the thousand: each must be read or refused in one line.

    python tests/support/fuzz_rows.py [FILES] [SEED]

Of a file that is read although a value was changed, every row that was not touched must be the row
of the unchanged table, so nothing moves or gets lost; tables are written by other libraries.
"""

import copy
import csv
import gzip
import io
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from raycib.data.rows import Row, fingerprint, read_rows
from raycib.errors import UserError

Entry = dict[str, Any]
CHAT = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
TABLES: dict[str, list[Entry]] = {
    "plain": [{"prompt": f"say {n}", "response": f"{n} it is"} for n in range(12)],
    "alpaca": [{"instruction": f"do {n}", "input": "this", "output": "  done"} for n in range(11)],
    "orca": [
        {"id": n, "system_prompt": "Be kind.", "question": f"why {n}?", "response": "so\n"}
        for n in range(4)
    ],
    "harmbench": [
        {"Behavior": f"tell {n}", "Tags": "x", "ContextString": "c" * n, "BehaviorID": f"b{n}"}
        for n in range(5)
    ],
    "jailbreakbench": [
        {"Index": n, "Goal": f"write {n}", "Target": "Sure", "Behavior": "Label"} for n in range(4)
    ],
    "xstest": [
        {"id": n, "prompt": f"kill {n}", "type": "homonyms", "label": "safe"} for n in range(4)
    ],
    "medmcqa": [
        {"question": f"which {n}?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": n % 4}
        for n in range(6)
    ],
}
NESTED: dict[str, list[Entry]] = {
    "messages": [{"messages": copy.deepcopy(CHAT), "source": "x"} for _ in range(4)],
    "trl": [{"prompt": CHAT[:1], "completion": CHAT[1:]} for _ in range(3)],
    "squad": [
        {"question": f"who {n}?", "context": "He.", "answers": {"text": ["He", "he"][: n % 3]}}
        for n in range(4)
    ],
    "mmlu": [{"question": f"who {n}?", "choices": ["x", "y"], "answer": n % 2} for n in range(4)],
    "arc": [
        {"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "A"}
        for _ in range(3)
    ],
}
VALUES: list[Any] = [
    None, True, False, 0, 4, -1, 1.0, 2.5, float("nan"), float("inf"), 10**40, "", " ", "\n\n", "b",
    "0", "\0", "a\0b", "\ufeff", "\u2028x\x85", "x" * 200_000, "#train", '"', '""', "a,b", "a\tb;c",
    "'", "\r", "\r\n", "\ud800", "\U0001f600", [], {}, [[]], [1], ["a"], {"a": 1}, {"role": "user"},
    CHAT, CHAT * 2, CHAT[:1], [None], {"text": ["a"], "label": ["A"]}, {"text": [5]}, "unsafe",
]  # fmt: skip
NAMES = [
    "", " ", "prompt", "Prompt", "PROMPT ", "response", "answer", "output", "input", "system",
    "messages", "history", "label", "type", "is_safe", "choices", "cop", "image", "x" * 9000, "\0",
    "\ud800", "a\nb", "#", "\ufeffprompt", "answers", "Goal", "behavior", "ContextString",
]  # fmt: skip
PIECES = [
    b"\0", b'"', b'""', b"\n", b"\r", b"\r\n\r\n", b",", b",,", b";", b"\t", b"\xff", b"{", b"}",
    b"[", b"]", b"[" * 3000, b":", b"\\", b"\\ud800", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"NaN",
    b"null", b"1" * 5000, b"PAR1", b"\x1f\x8b", b"<html>", b'{"prompt": "x"}\n',
]  # fmt: skip
PARTS = [
    "#train", "#held-out", "#first-2", "#prompt=prompt", "#response=output", "#only=label:*",
    "#without=type:contrast_*", "#labels-from=1", "#system=", "#nothing", "#", "#first-0",
]  # fmt: skip


def write_csv(entries: list[Entry], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([names, *([entry.get(name, "") for name in names] for entry in entries)])
    return text.getvalue().encode("utf-8", "surrogatepass")


def write_jsonl(entries: list[Entry]) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()


def write_json(entries: list[Entry]) -> bytes:
    return json.dumps({"data": entries}, indent=1, ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )


def write_parquet(entries: list[Entry]) -> bytes:
    buffer = io.BytesIO()
    names = dict.fromkeys(name for entry in entries for name in entry)
    columns = {name: [entry.get(name) for entry in entries] for name in names}
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


WRITERS: dict[str, Callable[[list[Entry]], bytes]] = {
    ".csv": write_csv,
    ".tsv": lambda entries: write_csv(entries, "\t"),
    ".jsonl": write_jsonl,
    ".json": write_json,
    ".parquet": write_parquet,
    ".jsonl.gz": lambda entries: gzip.compress(write_jsonl(entries), 1),
}


def change_values(entries: list[Entry], draw: random.Random) -> set[int]:
    """Change a value or a column of some rows, in place; which rows were touched."""
    touched = set()
    for _ in range(draw.randint(1, 3)):
        index = draw.randrange(len(entries))
        entry = entries[index]
        touched.add(index)
        name = draw.choice([*entry, draw.choice(NAMES)])
        match draw.randrange(4):
            case 0:
                entry.pop(name, None)
            case 1 if name in entry:
                entry[draw.choice(NAMES)] = entry.pop(name)
            case _:
                entry[name] = draw.choice(VALUES)
    return touched


def change_bytes(raw: bytes, draw: random.Random) -> bytes:
    """Damage a file as discs, editors and broken downloads do."""
    if draw.random() < 0.05:
        return raw.decode("utf-8", "replace").encode(draw.choice(["utf-16", "utf-32", "utf-16-le"]))
    found = bytearray(raw)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(found) + 1)
        match draw.randrange(5):
            case 0:
                found[place : place + 1] = draw.choice(PIECES)
            case 1:
                found[place:place] = draw.choice(PIECES)
            case 2:
                del found[place : place + draw.randint(1, 30)]
            case 3:
                found[place:place] = found[place : place + draw.randint(1, 80)]
            case 4:
                del found[max(1, place) :]
    return bytes(found)


def write(entries: list[Entry], suffix: str) -> bytes | None:
    """A table as a file; None where the format has no place for such values."""
    try:
        return WRITERS[suffix](entries)
    except (ValueError, TypeError, OverflowError, UnicodeError, csv.Error, pyarrow.ArrowException):
        return None


def try_one(folder: Path, draw: random.Random) -> str:
    """One damaged file; how it ended. Raises AssertionError for a wrong end."""
    suffix = draw.choice(list(WRITERS))
    tables = TABLES if suffix in (".csv", ".tsv") else TABLES | NESTED
    entries = copy.deepcopy(tables[draw.choice(list(tables))])
    path = folder / f"rows{suffix}"
    clean = write(entries, suffix)
    assert clean is not None
    path.write_bytes(clean)
    expected = read_rows(str(path)).rows
    assert len(expected) == len(entries), "an undamaged table is read whole"
    touched: set[int] | None = change_values(entries, draw) if draw.random() < 0.6 else set()
    raw = write(entries, suffix)
    if raw is None:
        return "not written"
    if not touched or draw.random() < 0.2:
        raw, touched = change_bytes(raw, draw), None
    path.write_bytes(raw)
    part = draw.choice(PARTS) if draw.random() < 0.2 else ""
    try:
        loaded = read_rows(f"{path}{part}")
    except UserError as error:
        line = str(error)
        assert "\n" not in line and len(line) < 1500, line[:300]
        assert path.name in line, line
        line.encode()
        return "refused"
    assert loaded.rows
    assert all(row.prompt.strip() for row in loaded.rows)
    assert all("\n" not in note for note in loaded.notes)
    "".join(loaded.notes).encode()
    fingerprint(loaded.rows)
    if touched is not None and not part:
        untouched_are_as_they_were(expected, loaded.rows, touched, "".join(loaded.notes))
    return "read"


def untouched_are_as_they_were(
    expected: list[Row], found: list[Row], touched: set[int], notes: str
) -> None:
    """Rows that were not changed are read as before, and none is lost."""
    if "blank rows skipped" in notes:
        return
    assert len(found) == len(expected)
    for index, (one, other) in enumerate(zip(expected, found, strict=True)):
        assert index in touched or one == other, (index, one, other)


def fuzz(files: int, seed: int) -> Counter[str]:
    """How `files` damaged files ended."""
    ends: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(files):
            draw = random.Random(f"{seed} {number}")
            try:
                ends[try_one(Path(folder), draw)] += 1
            except Exception as error:
                raise AssertionError(f"file {number} of seed {seed}: {error!r}"[:600]) from error
    return ends


if __name__ == "__main__":
    files, seed = (int(text) for text in [*sys.argv[1:], *("10000", "0")[len(sys.argv) - 1 :]])
    print(dict(fuzz(files, seed)))
