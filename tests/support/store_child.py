"""A light process that writes to a store and is killed or starved while it does.

``python store_child.py`` reads one JSON request a line and answers with one line. Every request
is served by a forked child, so that a spawn costs milliseconds and a death costs nothing. The
process imports ``raycib.store`` and nothing heavy.
"""

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

from forks import forked

from raycib.store import Record, Store, StoreError

PR_SET_PTRACER = 0x59616D61
SIZE = 500
"""Bytes of a file that is put, unless a test says otherwise."""


def content(key: str, size: int, salt: str = "") -> dict[str, bytes]:
    """The files of ``key``: two at the top and one in a folder; ``salt`` tells writers apart."""
    seed = int.from_bytes(sha256(f"{key}/{salt}".encode()).digest()[:8])
    data = random.Random(seed).randbytes(size)
    return {"weights.bin": data, "config.json": data[:40].hex().encode(), "more/x.bin": data[:7]}


def put(store: Store, key: str, size: int, salt: str = "") -> Record:
    """Put ``content(key)`` as one record of kind "stages"."""

    def write(folder: Path) -> None:
        (folder / "more").mkdir()
        for name, data in content(key, size, salt).items():
            (folder / name).write_bytes(data)

    return store.put("stages", key, write, {"key": key, "size": size, "salt": salt})


def is_whole(record: Record | None, key: str = "k", size: int = SIZE) -> bool:
    """Whether a record is byte for byte what ``put`` writes for a key."""
    assert record
    files = {name: record.path(name).read_bytes() for name in record.files}
    return files == content(key, size) and record.about["key"] == key


def left_over(root: Path) -> list[str]:
    """Names of temporary folders."""
    writing = root / ".writing"
    return os.listdir(writing) if writing.exists() else []


def sweep(root: Any) -> None:
    """What killed writers of this host left is removed, as before the first writing of any."""
    with Store(root).scratch():
        pass


def act(request: dict[str, Any]) -> str:
    """Do what a request says; the answer is "ok" or the error a user would see."""
    try:
        store = Store(request["root"])
        match request["do"]:
            case "put":
                put(store, request["key"], request["size"])
            case "discard":
                store.discard("stages", request["key"])
            case "put many":
                for i in range(10_000):
                    put(store, f"{request['key']}-{i}", request["size"])
    except StoreError as error:
        return f"StoreError: {error}"
    return "ok"


def traced(request: dict[str, Any]) -> dict[str, Any]:
    """Do a request under strace, which sees nothing of what came before it."""
    go_read, go = os.pipe()
    answer_read, answer = os.pipe()

    def wait_then_act() -> None:
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
        os.read(go_read, 1)
        os.write(answer, act(request).encode())
        os._exit(0)  # before any other call of the system

    child = forked(wait_then_act)
    os.close(go_read)
    os.close(answer)
    with tempfile.NamedTemporaryFile("r") as trace:
        strace = subprocess.Popen(
            ["strace", "-y", "-s0", "-o", trace.name, *request["strace"], "-p", str(child)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert strace.stderr
        # Said once the child is told to stop; that it has a tracer shows before, and a busy machine
        # then lets it go on unseen.
        said_first = strace.stderr.readline()
        refused = not said_first.endswith("attached\n")
        os.write(go, b"g")
        os.close(go)
        said = os.read(answer_read, 10_000).decode()
        os.close(answer_read)
        status = os.waitpid(child, 0)[1]
        errors = said_first + strace.communicate()[1]
        return {
            "status": status,
            "said": said,
            "refused": errors if refused else "",
            "trace": trace.read().splitlines(),
        }


def killed_after(request: dict[str, Any]) -> dict[str, Any]:
    """Do a request and SIGKILL it after ``request["seconds"]``."""
    child = forked(lambda: act(request))
    time.sleep(request["seconds"])
    os.kill(child, signal.SIGKILL)
    return {"status": os.waitpid(child, 0)[1]}


def dying_at_line(request: dict[str, Any]) -> dict[str, Any]:
    """Do a request in a process that dies before the n-th line of raycib it would run."""
    left = request["line"]

    def count(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal left
        if "raycib" not in frame.f_code.co_filename:
            return None
        left -= event == "line"
        if left < 0:
            os._exit(9)
        return count

    def act_counted() -> None:
        sys.settrace(count)
        act(request)

    return {"status": os.waitpid(forked(act_counted), 0)[1]}


def race(request: dict[str, Any]) -> dict[str, Any]:
    """Several processes put the same keys in the same order, each with bytes of its own.

    Each writes what it was told about every key to ``request["notes"]/<number>.json``.
    """
    gate_read, gate = os.pipe()

    def run(number: int) -> None:
        os.close(gate)
        os.read(gate_read, 1)
        store = Store(request["root"])
        seen = {key: _seen(put(store, key, 64, str(number))) for key in request["keys"]}
        assert not store.damaged, store.damaged
        Path(request["notes"], f"{number}.json").write_text(json.dumps(seen))

    children = [forked(partial(run, number)) for number in range(request["processes"])]
    os.close(gate)
    os.close(gate_read)
    return {"statuses": [os.waitpid(child, 0)[1] for child in children]}


def _seen(record: Record) -> str:
    data = record.path("weights.bin").read_bytes()
    return f"{record.about['salt']} {sha256(data).hexdigest()}"


@contextmanager
def asking() -> Iterator[Callable[..., dict[str, Any]]]:
    """Start this program; ``ask(how=..., ...)`` sends it a request and returns the answer."""
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin
        assert child.stdout
        to_child, from_child = child.stdin, child.stdout

        def ask(**request: Any) -> dict[str, Any]:
            print(json.dumps(request), file=to_child, flush=True)
            return json.loads(from_child.readline())

        yield ask
        to_child.close()


def main() -> None:
    """Serve requests until standard input ends."""
    with tempfile.TemporaryDirectory() as folder:
        # Imports that Python makes late must not count as system calls of a ``put``.
        act({"do": "put", "root": folder, "key": "warm", "size": 10})
        act({"do": "put", "root": f"{folder}/stages/warm/config.json", "key": "warm", "size": 10})
    services = {f.__name__: f for f in (traced, killed_after, dying_at_line, race)}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(services[request["how"]](request)), flush=True)


if __name__ == "__main__":
    main()
