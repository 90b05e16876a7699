"""What a store promises while nothing breaks."""

import json
import os
import pickle
import subprocess
from pathlib import Path

import pytest
from store_child import put

from raycib.store import Store, StoreError
from raycib.store.folders import is_dead, new_writer
from raycib.store.sealed import RECORD

SIZE = 60


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


def nothing(_: Path) -> None:
    """Write no file."""


def test_what_was_put_is_got(store: Store):
    about = {"spec": {"lam": 0.1, "epsilon": float("inf")}, "note": "naïve \ud800", "n": [1, None]}

    def write(folder: Path) -> None:
        (folder / "a").write_bytes(b"\0")

    written = store.put("stages", "k", write, about)
    read = Store(store.root).get("stages", "k")
    assert read
    assert read == written
    assert read.about == about
    assert read.path("a").read_bytes() == b"\0"
    with pytest.raises(KeyError, match="stages/k has no file 'b'"):
        read.path("b")


def test_a_person_can_read_a_store(store: Store):
    put(store, "k", SIZE)
    record = json.loads(Path(store.root, "stages/k/record.json").read_text())
    assert " ".join(record) == "format kind key created writer files about sha256"
    assert (record["format"], record["kind"], record["key"]) == (1, "stages", "k")
    assert record["files"]["weights.bin"]["size"] == SIZE


def test_the_first_writer_wins_and_the_second_is_not_even_asked(store: Store):
    first = put(store, "k", SIZE, "first")

    def never(_: Path) -> None:
        raise AssertionError("the result was there")

    assert store.put("stages", "k", never, {}) == first


def test_a_writer_overtaken_while_it_writes_gets_the_winner(store: Store):
    def late(folder: Path) -> None:
        put(Store(store.root), "k", SIZE, "first")
        (folder / "weights.bin").write_bytes(b"second")

    assert store.put("stages", "k", late, {"salt": "second"}).about["salt"] == "first"
    assert os.listdir(Path(store.root, ".writing")) == []


def test_what_write_raises_is_raised_and_nothing_is_kept(store: Store):
    def fails(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise FileNotFoundError("the data set is missing")

    with pytest.raises(FileNotFoundError, match="the data set is missing") as error:
        store.put("stages", "k", fails, {})
    assert not isinstance(error.value, StoreError)
    assert store.keys("stages") == os.listdir(Path(store.root, ".writing")) == []


def test_keys_of_many_kinds_stand_apart(store: Store):
    for kind, key in [("stages", "b"), ("stages", "a"), ("verdicts", "a"), ("x.y_z-1", "A.b_c-d")]:
        store.put(kind, key, nothing, {"kind": kind})
    assert store.keys("stages") == ["a", "b"]
    assert store.keys("never") == []
    assert [record.about["kind"] for record in store.records("verdicts")] == ["verdicts"]
    store.discard("stages", "a")
    store.discard("stages", "a")
    assert (store.keys("stages"), store.keys("verdicts")) == (["b"], ["a"])


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a b", "a\n", "é", "x" * 201])
def test_unsafe_names_are_refused(store: Store, name: str):
    for kind, key in [(name, "k"), ("stages", name)]:
        for call in (store.get, store.discard, lambda k, n: store.put(k, n, nothing, {})):
            with pytest.raises(ValueError, match="not a safe name"):
                call(kind, key)


def test_only_plain_files_with_plain_names_are_stored(store: Store):
    def link(folder: Path) -> None:
        (folder / "link").symlink_to("/etc/hostname")

    for write in (link, lambda f: os.mkfifo(f / "pipe")):
        with pytest.raises(ValueError, match="is not a plain file"):
            store.put("stages", "k", write, {})
    for name in (RECORD, "a b", "new\nline"):
        with pytest.raises(ValueError, match="cannot be a stored file's name"):
            store.put("stages", "k", lambda f, name=name: (f / name).touch(), {})
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.put("stages", "k", nothing, {"path": Path("x")})
    assert store.keys("stages") == []


def test_a_record_in_the_wrong_place_is_damage(store: Store):
    put(store, "a", SIZE)
    home = Path(store.root, "stages")
    (home / "a").rename(home / "b")
    assert store.get("stages", "b") is None
    assert "belongs to stages/a" in store.damaged[0]


@pytest.mark.parametrize("what", ["empty folder", "file"])
def test_whatever_else_lies_in_the_place_of_a_result_is_moved_aside(store: Store, what: str):
    place = Path(store.root, "stages", "k")
    place.parent.mkdir(parents=True)
    if what == "file":
        place.write_text("not a result")
    else:
        place.mkdir()
    assert put(store, "k", SIZE).about["key"] == "k"
    assert [note.split(":")[0] for note in store.damaged] == ["stages/k"]


def test_a_newer_format_is_an_error_and_not_damage(store: Store, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr("raycib.store.sealed.FORMAT", 2)
        put(store, "k", SIZE)
    with pytest.raises(
        StoreError, match=r"record format 2, this raycib reads 1; .*update this one"
    ):
        store.get("stages", "k")
    assert store.keys("stages") == ["k"]


def test_a_root_that_cannot_be_one_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="choose a folder, not a file") as error:
            Store(root)
        assert "\n" not in str(error.value)
    (tmp_path / "link").symlink_to("gone")
    for root in (tmp_path / "link", tmp_path / "link" / "below"):
        with pytest.raises(StoreError, match=r"/link is a link to gone, which is not there; make"):
            Store(root)
    (tmp_path / "gone").mkdir()
    assert put(Store(tmp_path / "link"), "k", SIZE)
    with pytest.raises(StoreError, match="cannot begin to write at /proc/raycib"):
        Store("/proc/raycib").check_writable()


def test_a_kind_that_cannot_be_written_is_told_before_anything_is_computed_for_it(store: Store):
    put(store, "k", SIZE)
    Path(store.root, "checkpoints").write_text("x")
    store.check_writable(["stages", "never"])
    with pytest.raises(StoreError, match=r"cannot write at .*/checkpoints: .*; choose a folder"):
        store.check_writable(["stages", "checkpoints"])


def test_a_claim_is_one_holders_until_it_ends(store: Store):
    other = Store(store.root)
    with store.claim("tasks", "k") as mine, other.claim("tasks", "k", wait=False) as theirs:
        assert mine and not theirs
    with other.claim("tasks", "k", wait=False) as theirs:
        assert theirs
    with store.claims("tasks", ["a", "b"]) as first, other.claims("tasks", ["b", "c"]) as second:
        assert (first, second) == ({"a", "b"}, {"c"})
    assert os.listdir(Path(store.root, ".claims")) == []


def test_to_open_a_store_makes_nothing(store: Store):
    assert store.get("stages", "k") is None and store.keys("stages") == []
    store.discard("stages", "k")
    assert not os.path.exists(store.root)
    store.check_writable()
    assert [one.name for one in Path(store.root).rglob("*")] == [".writing"]


def test_a_store_of_the_first_format_stays_readable(store: Store):
    """These bytes were written by record format 1; every later raycib reads them."""
    home = Path(store.root, "stages/k")
    home.mkdir(parents=True)
    (home / "a.txt").write_bytes(b"kept")
    (home / RECORD).write_bytes(FORMAT_1)
    record = store.get("stages", "k")
    assert record, store.damaged
    assert record.about == {"lam": 0.1}


def test_a_relative_root_means_the_same_folder_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    record = put(Store("runs"), "k", SIZE)
    monkeypatch.chdir("/")
    assert record.path("config.json").exists()
    assert record.folder == tmp_path / "runs/stages/k"


def test_a_store_and_its_errors_cross_processes(store: Store):
    assert pickle.loads(pickle.dumps(store)).root == store.root
    error = pickle.loads(pickle.dumps(StoreError("one line")))
    assert isinstance(error, StoreError)
    assert str(error) == "one line"


def test_only_writers_that_are_surely_dead_are_swept(store: Store):
    mine = new_writer()
    host, boot, space, pid, start, number = mine.split("_")
    free = subprocess.Popen(["true"])
    free.wait()
    dead = {
        "its pid is free": [host, boot, space, str(free.pid), start, number],
        "its pid was given to another": [host, boot, space, pid, "1", number],
        "the machine was booted since": [host, "an-earlier", "1", pid, start, number],
    }
    unsure = {
        "alive": [host, boot, space, pid, start, number],
        "another host": ["elsewhere.1", boot, space, str(free.pid), start, number],
        "another container": [host, boot, "1", str(free.pid), start, number],
        "nothing known of it": [host, "", space, str(free.pid), "", number],
        "no writer's name": ["notes"],
    }
    for names, expected in ((dead, True), (unsure, False)):
        for why, parts in names.items():
            assert is_dead("_".join(parts)) == expected, why
            Path(store.root, ".writing", "_".join(parts)).mkdir(parents=True, exist_ok=True)
    put(store, "k", SIZE)  # the first put of a process sweeps
    left = {"_".join(parts) for parts in unsure.values()}
    assert set(os.listdir(Path(store.root, ".writing"))) == left


def test_what_is_made_in_scratch_is_put_by_a_move_and_the_rest_is_gone(tmp_path):
    """A full disk is told as by `put`."""
    store = Store(tmp_path)
    with store.scratch() as folder:
        for name in ("large", "useless"):
            (folder / name).write_bytes(b"values")
        store.put("stages", "k", lambda to: os.rename(folder / "large", to / "large"), {})
    record = store.get("stages", "k")
    assert record and record.path("large").read_bytes() == b"values"
    assert not folder.exists()
    with (
        pytest.raises(StoreError, match="No space left"),
        store.scratch() as folder,
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"values")
    assert not folder.exists()


FORMAT_1 = b"""\
{
 "format": 1,
 "kind": "stages",
 "key": "k",
 "created": "2026-11-22T04:26:39+00:00",
 "writer": "host.1_boot_1_2_3_4",
 "files": {
  "a.txt": {
   "sha256": "79f076abdd19a752db7267bfff2f9022161d120dea919fdaca2ffdfc24ca8c96",
   "size": 4
  }
 },
 "about": {
  "lam": 0.1
 },
 "sha256": "d85f0db99ccae9fb5d6bf96997f822e9ebda49de39809e98321e0b055b46dc10"
}
"""
