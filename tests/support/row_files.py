"""Rows, and files of each kind that hold them."""

import csv
import io
import json
from typing import Any

from raycib.data.rows import Row

ROWS = [Row("What is 2+2?", "4"), Row('Say "hi",\nplease', "hi — ä 漢\u2028字"), Row("Go", "x" * 9)]


def named(row: Row) -> dict[str, str]:
    return {"prompt": row.prompt, "response": row.response}


def as_csv(rows: list[Row], header=("prompt", "response")) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows([header, *(row[:2] for row in rows)])
    return text.getvalue()


def as_jsonl(rows: list[Row], **options: Any) -> str:
    return "".join(json.dumps(named(row), **options) + "\n" for row in rows)


def as_json(rows: list[Row]) -> str:
    return json.dumps([named(row) for row in rows], indent=1, ensure_ascii=False)


WRITERS = {"csv": as_csv, "jsonl": as_jsonl, "json": as_json}
