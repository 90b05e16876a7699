"""Command lines drawn at random from a seed: real options with right, odd and hostile values.

`python tests/support/command_lines.py 1000` tries as many and says how they ended; a test tries a
few. Each runs in this process with `--dry-run`, as `python sweeps/NAME.py` would: nothing is
trained.
"""

import contextlib
import io
import json
import os
import random
import resource
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.py"))
PROGRAM = ROOT / "raycib" / "__main__.py"
SLOW_S = 120
"""A plan that takes longer hangs, as far as a person can tell."""

MOST_BYTES = 2**33
"""Of address space, so that a line that asks for the moon takes nobody's memory."""

ODD = (
    "", " ", "nan", "inf", "-inf", "-1", "0", "1e400", "9" * 5000, "0x10", "١٢", "1,,2", "a" * 5000,
    "../..", "/", ".", "~nobody/x", "/dev/null", "/proc/self/mem", "hub:", "hub:a/b:c", "world:",
    "world:nothing", "stage:", "stage:../..@/", "stage:00@nowhere", "s3://", "file:///x", "a\nb",
    "a\tb", "\udcff", "\u202e", "\U0001f600", "%s", "{}", "${HOME}", "$(id)", "'; drop", "#", "##",
    "x#train", "x#first-0", "--", "-", "null", "true", "[]", "{}", '{"a":', "[" * 3000, "\\", "*",
)  # fmt: skip
SETTINGS = (
    "trainer.learning_rate", "trainer.batch_size", "trainer.epochs", "trainer.warmup_steps",
    "trainer.schedule", "lora.rank", "lora.alpha", "lora.targets", "cib.lam", "cib.temperature",
    "cib.num_negatives", "cib.queue", "kl.lam", "kl.direction", "salora.safety_rank", "case1.lam",
    "safe_lora.base", "o_lora.lam", "trainer", "trainer.", ".rank", "no.such", "cib.kind",
)  # fmt: skip
VALUES = ("1", "0.1", "1e-4", "8", "linear", "cosine", "fifo", '["q_proj"]', "q_proj", "2", "64")
NUMBERS = ("1", "2", "3", "7", "100000000", "1000000000000000000000")
METHODS = ("lora", "kl", "cib", "kl,cib", "cib,cib", "safe_lora", "salora,o_lora", "none")
STRENGTHS = ("0", "0,1", "1,1", "0,1,5", "0.5", "1e-9", "1e9", "5,0")


class Outcome(NamedTuple):
    """How one command line ended."""

    code: int | None
    """Exit code; None where it did not end as a program should."""
    why: str
    """The line that was refused, or a traceback."""
    seconds: float


def make_files(folder: Path) -> dict[str, str]:
    """Small data files, right and wrong, and folders that are no models, by what they are."""
    tasks = [{"prompt": f"how do i clean lamp {n} ?", "response": f"here {n}"} for n in range(24)]
    right = {
        "task.jsonl": "".join(json.dumps(row) + "\n" for row in tasks),
        "other.jsonl": "".join(json.dumps(row | {"prompt": f"o {n}"}) + "\n"
                               for n, row in enumerate(tasks)),
        "harm.csv": "prompt\n" + "".join(f"how do i rig a bridge {n} ?\n" for n in range(4)),
        "safe.json": json.dumps([{"prompt": f"rig {n}", "response": "sorry"} for n in range(8)]),
        "one.jsonl": json.dumps(tasks[0]),
        "empty.jsonl": "",
        "bad.json": '{"a": [1, 2',
        "deep.json": "[" * 20_000,
        "list.json": "[1, 2]",
        "ragged.csv": "prompt,response\na,b,c\nd\n",
        "latin.csv": "prompt,response\ncaf\udce9,b\n",
        "text.txt": "hello",
    }  # fmt: skip
    for name, text in right.items():
        (folder / name).write_bytes(text.encode("utf-8", errors="surrogateescape"))
    (folder / "hollow").mkdir()
    (folder / "nomodel").mkdir()
    (folder / "nomodel" / "config.json").write_text("[]")
    os.mkfifo(folder / "pipe.jsonl")
    return {name: str(folder / name) for name in (*right, "hollow", "nomodel", "pipe.jsonl")}


def draw(rng: random.Random, files: dict[str, str]) -> list[str]:
    """One command line; most of its values are right, so that it gets far."""
    if rng.random() < 0.08:
        command = rng.choice(["methods", "track", "doctor", "nothing", "world", ""])
        extra = ["--quick"] if command == "doctor" else []
        return [str(PROGRAM), command, *extra, *rng.sample([*ODD, "cib", "--json", "-h"], 1)]
    rows, places = [*files.values(), "world:open.train"], ["world:aligned", *files.values()]
    pools: dict[str, tuple[str, ...] | list[str]] = {
        "--seeds": NUMBERS, "--preset": ("world", "llama31-8b"), "--workers": NUMBERS,
        "--group-size": NUMBERS, "--methods": METHODS, "--strengths": STRENGTHS,
        "--orders": ("all", "sample:6", "gsm>open;open>gsm", "sample:", ">", "open>open"),
        "--chat": ("own", "chatml"), "--max-length": ("64", "128", "2"), "--max-tokens": ("8", "1"),
        "--safety": rows, "--alignment": rows, "--base": ["world:base", *places],
        "--judge-url": ("http://127.0.0.1:1", "localhost:1", "http://", "ftp://x"),
        "--dashboard": (), "--fail-fast": (), "--set": (), "--benign": rows, "--probes": rows,
        "--scorer": ("final-number", "multiple-choice", "exact-match", "none"),
        "--judge-profile": ("world", "llama-guard-3", "instruct"),
    }  # fmt: skip
    line = [str(rng.choice(SWEEPS)), "--dry-run"]
    if rng.random() < 0.6:
        own = {
            "--model": "world:aligned", "--task": files["task.jsonl"],
            "--harmful": files["harm.csv"], "--judge": "world:guard",
        }  # fmt: skip
        for option, value in own.items():
            if rng.random() < 0.93:
                pool = rows if option in ("--task", "--harmful") else places
                wrong = rng.random() < 0.15
                line += [option, rng.choice(pool) if wrong else value]
    for option in rng.sample(list(pools), rng.randrange(5)):
        if option == "--set":
            value = rng.choice([*VALUES, *ODD])
            line += [option, f"{rng.choice(SETTINGS)}{rng.choice(['=', '=', '=', ''])}{value}"]
        elif not pools[option]:
            line.append(option)
        else:
            odd = rng.random() < 0.25
            line += [option, rng.choice(ODD) if odd else rng.choice(list(pools[option]))]
    if rng.random() < 0.05:
        line.insert(rng.randrange(1, len(line) + 1), rng.choice([*ODD, "--no-such", "-x", "-h"]))
    return line


def run(line: list[str]) -> Outcome:
    """Run a command line in this process. A program ends with 0, 1 or 2, and where it refuses its
    input with one line on stderr."""
    script, *arguments = line
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = [script, *arguments]
    began = time.monotonic()
    code: int | None = None
    why = ""
    old = signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(SLOW_S)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(script, run_name="__main__")
        why = "ended without an exit code"
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else None
        why = err.getvalue().strip()
    except BaseException:
        why = traceback.format_exc()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
        sys.argv = before
    seconds = time.monotonic() - began
    if code not in (0, 1, 2):
        code = None
    elif code == 2 and (not why.startswith("error: ") or "\n" in why):
        code, why = None, f"not one line: {why}"
    elif "Traceback" in why or "Traceback" in out.getvalue():
        code, why = None, f"a traceback: {why}"
    return Outcome(code, why, seconds)


def _hangs(*_: Any) -> None:
    raise TimeoutError(f"not done after {SLOW_S} s")


def outcomes(count: int, seed: int) -> Iterator[tuple[list[str], Outcome]]:
    """`count` command lines and how each ended, from a folder of their own."""
    rng = random.Random(seed)
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder))
        os.chdir(folder)
        try:
            for _ in range(count):
                line = draw(rng, files)
                yield line, run(line)
        finally:
            os.chdir(before)


def main() -> None:
    """Try as many as asked for and say how they ended; exit code 1 where one broke."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    count, seed = (int(text) for text in [*sys.argv[1:], "0", "0"][:2])
    ends: Counter[str] = Counter()
    slowest = 0.0
    for line, outcome in outcomes(count, seed):
        name = "broke" if outcome.code is None else f"exit {outcome.code}"
        ends[name] += 1
        slowest = max(slowest, outcome.seconds)
        if outcome.code is None:
            shown = " ".join(repr(part[:60]) for part in line[1:])
            print(f"{Path(line[0]).name} {shown}\n  {outcome.why.strip()[-400:]}", flush=True)
    print(f"{count} command lines: {dict(ends)}; the slowest took {slowest:.1f} s")
    raise SystemExit(bool(ends["broke"]))


if __name__ == "__main__":
    main()
