"""A file larger than memory is gone through row by row; what is not asked for is not kept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raycib.config import digest
from raycib.config.base import digest_of
from raycib.data.rows import Row, fingerprint, load_rows

ROWS = 100_000
PROMPT = "what is the sum of {0} and {0} where all of it is told in words , please ?"
READ = """
import sys
from raycib.data.rows import read_rows
peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
read_rows(sys.argv[1] + "#first-1")
before = peak()
found = read_rows(sys.argv[2])
print(len(found.rows), peak() - before, found.notes[0])
"""


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_first_rows_of_many_take_the_room_of_few(tmp_path: Path, kind: str) -> None:
    few, many = tmp_path / f"few.{kind}", tmp_path / f"many.{kind}"
    for file, count in ((few, 10), (many, ROWS)):
        with file.open("w") as out:
            if kind == "csv":
                out.write("prompt,response,topic\n")
                out.writelines(f'"{PROMPT.format(n)}",{2 * n},sums\n' for n in range(count))
            else:
                rows = ({"prompt": PROMPT.format(n), "response": str(2 * n)} for n in range(count))
                out.writelines(json.dumps(row) + "\n" for row in rows)
    assert many.stat().st_size > 8_000_000
    done = subprocess.run(
        [sys.executable, "-c", READ, str(few), f"{many}#first-50"], capture_output=True, text=True
    )
    kept, kilobytes, note = done.stdout.split(maxsplit=2)
    assert int(kept) == 50, done.stderr
    assert note.strip() == f"{ROWS} rows read", "all were, and what is wrong with one is said"
    assert int(kilobytes) < 6_000, "the file alone has more"


def test_a_mistake_behind_the_rows_that_are_kept_is_told(tmp_path: Path) -> None:
    from raycib.errors import UserError

    file = tmp_path / "rows.jsonl"
    lines = [{"prompt": "a", "response": "b"}] * 5 + [{"prompt": "", "response": "b"}]
    file.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError, match=r"row 6 \(line 6\)"):
        load_rows(f"{file}#first-2")


def test_a_fingerprint_of_a_stream_is_that_of_the_list() -> None:
    rows = [Row("a", "ö\ud800"), Row("", "x", "s"), Row("b", "c", "", ("d",))]
    contents = [["a", "ö\ud800"], ["", "x", "s"], ["b", "c", "", ["d"]]]
    assert fingerprint(rows) == digest(contents) == digest_of(iter(contents))
    assert digest_of([]) == digest([])
