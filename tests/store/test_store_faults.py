"""A stored result is whole or absent, whatever kills or starves its writer. Real faults only.

``RAYCIB_NIGHTLY=10`` makes the random parts ten times as long.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from errno import ENOSPC, EROFS
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from session import NIGHTLY, Ask
from store_child import SIZE, asking, content, is_whole, left_over, put, sweep

from raycib.store import Store, StoreError

pytestmark = pytest.mark.timeout(300 * NIGHTLY)
CALLS = ["-e", "trace=/^(openat|write|fsync|rename.*|close|mkdir.*|unlink.*|rmdir)$"]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Ask a light process to do something to a store; see ``store_child.py``."""
    with asking() as ask:
        yield ask


@pytest.fixture(scope="module")
def trace(ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Do something to a store under strace, or skip where that is impossible."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed (apt-get install strace)")

    def trace(root: Path, do: str, *options: str) -> dict[str, Any]:
        return ask(how="traced", do=do, root=str(root), key="k", size=SIZE, strace=options)

    if refused := trace(tmp_path_factory.mktemp("probe") / "store", "put", *CALLS)["refused"]:
        pytest.skip(f"this machine lets no process be traced: {refused}")
    return trace


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: a SIGKILL loses no page cache, so disks only wait."""
    inside = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=inside) as folder:
        yield Path(folder)


def prepared(folder: Path, scenario: str) -> tuple[Path, str]:
    """A store to copy before each fault, and what is then done to it."""
    root = folder / "prepared"
    if scenario in ("repair", "discard"):
        put(Store(root), "k", SIZE)
    if scenario == "repair":
        (root / "stages/k/weights.bin").write_bytes(b"damaged")
    return root, "discard" if scenario == "discard" else "put"


def system_calls(lines: list[str]) -> Counter[str]:
    """How often each call was made, less those on the pipe that carries the answer."""
    return Counter(line.split("(")[0] for line in lines if "(" in line and "<pipe:" not in line)


def copied(root: Path, to: Path) -> Path:
    """A fresh copy of a prepared store; a store that does not exist yet stays so."""
    shutil.rmtree(to, ignore_errors=True)
    if root.exists():
        shutil.copytree(root, to)
    return to


@pytest.mark.parametrize("scenario", ["put", "repair", "discard"])
def test_killed_at_every_system_call_a_result_is_whole_or_absent(
    trace: Ask, memory: Path, scenario: str, capsys: pytest.CaptureFixture[str]
):
    template, do = prepared(memory, scenario)
    calls = system_calls(trace(copied(template, memory / "dry"), do, *CALLS)["trace"])
    assert {"openat", "fsync", "close"} <= calls.keys()
    assert sum(calls.values()) > 5
    torn: list[str] = []
    for call, times in calls.items():
        for n in range(1, times + 1):
            root = copied(template, memory / "store")
            kill = f"inject={call}:signal=KILL:when={n}"
            done = trace(root, do, "-e", f"trace={call}", "-e", kill)
            assert done["status"] == signal.SIGKILL, (call, n, done)
            store = Store(root)
            found = store.get("stages", "k")
            if found and not is_whole(found):
                torn.append(f"{call} {n}")
            assert bool(store.damaged) <= (scenario == "repair"), (call, n, store.damaged)
            assert is_whole(put(store, "k", SIZE)), (call, n)
            sweep(root)
            assert left_over(root) == [], (call, n)
    with capsys.disabled():
        print(f"\n{scenario}: {sum(calls.values())} kills, one at each of {dict(calls)}")
    assert torn == []


def test_killed_at_random_times_a_result_is_whole_or_absent(
    ask: Ask, memory: Path, capsys: pytest.CaptureFixture[str]
):
    kills, seed = 300 * NIGHTLY, random.randrange(1 << 32)
    rng = random.Random(seed)
    size, results, interrupted = 50_000, 0, 0
    for i in range(kills):
        root = str(memory / "store")
        ask(
            how="killed_after",
            do="put many",
            root=root,
            key=i,
            size=size,
            seconds=rng.random() / 50,
        )
        interrupted += bool(left_over(memory / "store"))
        store = Store(root)
        keys = [key for key in store.keys("stages") if key.startswith(f"{i}-")]
        for key in [*keys, f"{i}-{len(keys)}"]:
            found = store.get("stages", key)
            assert (found is not None) == (key in keys), (seed, key, store.damaged)
            assert is_whole(found or put(store, key, size), key, size), (seed, key)
        sweep(root)
        assert left_over(memory / "store") == [], (seed, i)
        results += len(keys)
    with capsys.disabled():
        print(
            f"\n0 of {kills} random kills tore a result (95 %: below {3 / kills:.2%}); "
            f"{interrupted} fell inside a put, {results} results were complete; seed {seed}"
        )
    assert interrupted > kills / 30


def test_each_step_is_durable_before_the_next(trace: Ask, tmp_path: Path):
    """What a power cut may keep: never a name without its bytes, never a record without files."""
    calls = trace(tmp_path / "store", "put", *CALLS)["trace"]
    writer = next(re.findall(r"\.writing/([^/\"]+)\"", c)[0] for c in calls if ".writing/" in c)
    temporary = tmp_path / "store/.writing" / writer

    def when(call: str, path: Path) -> int:
        """The place of the only such call on exactly this path."""
        hits = [
            i
            for i, line in enumerate(calls)
            if line.startswith(f"{call}(") and re.search(rf'[<"]{re.escape(str(path))}[>"]', line)
        ]
        assert len(hits) == 1, (call, path, hits)
        return hits[0]

    files = [temporary / name for name in content("k", SIZE)]
    synced = [when("fsync", file) for file in files]
    assert all(when("write", file) < at for file, at in zip(files, synced, strict=True))
    record = temporary / "record.json"
    renamed = when("rename", temporary)
    in_order = [
        max(synced),
        when("write", record),
        when("fsync", record),
        when("fsync", temporary / "more"),
        when("fsync", temporary),
        renamed,
        when("fsync", tmp_path / "store/stages"),
    ]
    assert in_order == sorted(in_order)
    # New folders on the way down are durable before anything appears in them.
    assert when("mkdir", tmp_path / "store") < when("fsync", tmp_path) < renamed
    assert when("mkdir", tmp_path / "store/stages") < when("fsync", tmp_path / "store") < renamed


@pytest.mark.parametrize("scenario", ["put", "repair"])
def test_a_disk_that_refuses_leaves_nothing_half_written(
    trace: Ask, memory: Path, scenario: str, capsys: pytest.CaptureFixture[str]
):
    template, do = prepared(memory, scenario)
    calls = system_calls(trace(copied(template, memory / "dry"), do, *CALLS)["trace"])
    refusals = 0
    for call in ("write", "fsync", "rename", "mkdir", "close", "openat"):
        for error in ("ENOSPC", "EIO"):
            for n in range(1, calls[call] + 1):
                root = copied(template, memory / "store")
                inject = f"inject={call}:error={error}:when={n}"
                done = trace(root, do, "-e", f"trace={call}", "-e", inject)
                at = (call, error, n, done["said"])
                assert done["status"] == 0, at
                refusals += (refused := done["said"].startswith("StoreError: cannot "))
                assert refused or done["said"] == "ok", at
                found = Store(root).get("stages", "k")
                if call == "fsync":
                    synced = [re.findall(r"<(.*)>\)", line) for line in done["trace"]]
                    assert synced.count(synced[n - 1]) == 1, f"tried again: {at}"
                if call in ("write", "fsync"):
                    assert left_over(root) == [], at
                    assert (found is None) == refused, at
                assert found is None or is_whole(found), at
                assert is_whole(put(Store(root), "k", SIZE)), at
    with capsys.disabled():
        print(f"\n{scenario}: {refusals} errors reported, 0 wrong reads")
    assert refusals > 2 * (calls["write"] + calls["fsync"]) - 1


def test_a_full_disk_is_reported_and_once_freed_goes_on(small_disk: Path):
    store, size = Store(small_disk / "store"), 1 << 20
    puts = (put(store, str(n), size) for n in count())
    with pytest.raises(StoreError, match=r"cannot write stages/.*No space left.*free some") as full:
        list(puts)
    n = len(store.keys("stages"))
    assert full.value.errno == ENOSPC
    assert "\n" not in str(full.value)
    assert 5 < n < 16
    assert sorted(store.keys("stages"), key=int) == [str(i) for i in range(n)]
    assert all(is_whole(record, record.key, size) for record in store.records("stages"))
    assert left_over(small_disk / "store") == []
    assert not store.damaged
    store.discard("stages", "0")
    assert is_whole(put(store, str(n), size), str(n), size)


def test_a_disk_that_may_only_be_read_is_read(small_disk: Path):
    store = Store(small_disk / "store")
    put(store, "k", SIZE)
    put(store, "hurt", SIZE)
    (small_disk / "store/stages/hurt/weights.bin").write_bytes(b"damaged")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    store = Store(small_disk / "store")
    assert is_whole(put(store, "k", SIZE))
    with pytest.raises(StoreError, match="Read-only file system; choose a store you may write"):
        store.check_writable()
    assert store.get("stages", "hurt") is None
    assert "cannot be moved aside" in store.damaged[0]
    with pytest.raises(
        StoreError, match="Read-only file system; choose a store you may write"
    ) as e:
        put(store, "new", SIZE)
    assert e.value.errno == EROFS


def test_a_kind_whose_folder_is_somebody_elses_is_told(small_disk: Path):
    """Which a disk of its own that may only be read stands for: it refuses root, too."""
    store, stages = Store(small_disk / "store"), small_disk / "store/stages"
    put(store, "k", SIZE)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", stages], check=True)
    try:
        store.check_writable(["verdicts"])
        with pytest.raises(StoreError, match=r"store/stages: Permission denied; choose a store"):
            store.check_writable(["verdicts", "stages"])
    finally:
        subprocess.run(["umount", stages], check=True)
    store.check_writable(["verdicts", "stages"])


def test_eight_writers_of_the_same_keys_leave_one_result_each(ask: Ask, tmp_path: Path):
    keys = [f"key{n}" for n in range(500)]
    root, notes = tmp_path / "store", tmp_path
    done = ask(how="race", root=str(root), notes=str(notes), keys=keys, processes=8)
    assert done["statuses"] == [0] * 8
    told = [json.loads((notes / f"{n}.json").read_text()) for n in range(8)]
    assert all(seen == told[0] for seen in told[1:])
    store = Store(root)
    records = {record.key: record for record in store.records("stages")}
    assert sorted(records) == sorted(keys)
    assert not store.damaged
    for key, record in records.items():
        salt = record.about["salt"]
        assert record.path("weights.bin").read_bytes() == content(key, 64, salt)["weights.bin"]
        assert told[0][key].split()[0] == salt
    winners = Counter(seen.split()[0] for seen in told[0].values())
    assert len(winners) > 1, "one process won every key: they did not race"
    assert left_over(root) == []
    assert sorted(os.listdir(root)) == [".writing", "stages"]


@pytest.mark.parametrize("fault", ["truncated", "flipped"])
def test_damage_is_noticed_and_touches_nothing_else(tmp_path: Path, fault: str):
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    root = tmp_path / "store"
    store = Store(root)
    for key in "abc":
        put(store, key, SIZE)
    home = root / "stages/b"
    originals = {p.relative_to(home): p.read_bytes() for p in home.rglob("*") if p.is_file()}
    names = sorted(originals)
    for i in range(64 if fault == "truncated" else 1_000 * NIGHTLY):
        name = names[i % len(names)]
        data = bytearray(originals[name])
        at = rng.randrange(len(data))
        if fault == "truncated":
            del data[at:]
        else:
            data[at] ^= 1 << rng.randrange(8)
        (home / name).write_bytes(data)
        store = Store(root)
        assert store.get("stages", "b") is None, (seed, name, at)
        assert [note.split(":")[0] for note in store.damaged] == ["stages/b"], (seed, name, at)
        assert store.keys("stages") == ["a", "c"]
        assert [is_whole(r, r.key) for r in store.records("stages")] == [True, True]
        (aside,) = (root / ".damaged").iterdir()
        assert (aside / name).read_bytes() == data
        aside.rename(home)
        (home / name).write_bytes(originals[name])
        found = store.get("stages", "b")
        assert found
        assert is_whole(found, "b")
