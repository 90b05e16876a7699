"""What a store promises while nothing breaks; and that it behaves like a dict when much does."""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from store_child import asking, content, put

from raycib.store import Record, Store, StoreError
from raycib.store.folders import is_dead, new_writer
from raycib.store.sealed import RECORD

NIGHTLY = int(os.environ.get("RAYCIB_NIGHTLY", "1"))
pytestmark = pytest.mark.timeout(300 * NIGHTLY)
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
    place.parent.mkdir()
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
    with pytest.raises(StoreError, match="cannot make a store at /proc/raycib"):
        Store("/proc/raycib")


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
    assert set(store.sweep(everyone=True)) == left


def test_reading_a_store_needs_nothing_heavy():
    heavy = {"torch", "ray", "mlflow", "pandas", "numpy", "transformers", "obstore", "pydantic"}
    code = f"import sys, raycib.store; print(sorted({heavy} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


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
KEYS = st.sampled_from(["a", "b", "c"])
SALTS = st.sampled_from(["x", "y", "z"])


class StoreLikeADict(RuleBasedStateMachine):
    """Every step is done to a store on a disk and to ``{key: who wrote it}``."""

    @initialize()
    def begin(self) -> None:
        inside = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = tempfile.TemporaryDirectory(dir=inside)
        self.root = Path(self.folder.name)
        self.store = Store(self.root)
        self.model: dict[str, str] = {}
        self.hurt: set[str] = set()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def check(self, record: Record | None, key: str) -> None:
        """``record`` is exactly what the model has for ``key``."""
        assert (record and record.about["salt"]) == self.model.get(key)
        if record:
            files = {name: record.path(name).read_bytes() for name in record.files}
            assert files == content(key, SIZE, self.model[key])

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        known = len(self.store.damaged)
        self.check(self.store.get("stages", key), key)
        assert len(self.store.damaged) - known == (key in self.hurt)
        self.hurt.discard(key)

    @rule(key=KEYS, salt=SALTS)
    def put(self, key: str, salt: str) -> None:
        self.model.setdefault(key, salt)
        self.check(put(self.store, key, SIZE, salt), key)
        self.hurt.discard(key)

    @rule(key=KEYS, salt=SALTS, other=SALTS)
    def overtaken(self, key: str, salt: str, other: str) -> None:
        def write(folder: Path) -> None:
            put(Store(self.root), key, SIZE, other)
            (folder / "weights.bin").write_text("late")

        self.model.setdefault(key, other)
        self.check(self.store.put("stages", key, write, {"salt": salt}), key)
        self.hurt.discard(key)

    @rule(key=KEYS)
    def raising(self, key: str) -> None:
        def write(folder: Path) -> None:
            (folder / "half").write_text("x")
            raise RuntimeError("interrupted")

        if key in self.model:
            self.check(self.store.put("stages", key, write, {}), key)
        else:
            with pytest.raises(RuntimeError, match="interrupted"):
                self.store.put("stages", key, write, {})
        self.hurt.discard(key)

    @rule(key=KEYS, line=st.integers(0, 320), do=st.sampled_from(["put", "put", "discard"]))
    def die(self, key: str, line: int, do: str) -> None:
        """A process does it and dies before a line of the store; done or not, never half."""
        request = {"do": do, "root": str(self.root), "key": key, "size": SIZE, "line": line}
        died = ASK(how="dying_at_line", **request)["status"] != 0
        record = self.store.get("stages", key)
        before = self.model.pop(key, None)
        after = None if do == "discard" else before if before is not None else ""
        if record:
            self.model[key] = record.about["salt"]
        allowed = {before, after} if died else {after}
        assert self.model.get(key) in allowed
        self.check(record, key)
        self.hurt.discard(key)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), keep=st.floats(0, 0.99))
    def truncate(self, data: st.DataObject, keep: float) -> None:
        key = data.draw(st.sampled_from(sorted(self.model)))
        name = data.draw(st.sampled_from([RECORD, *content(key, SIZE)]))
        path = self.root / "stages" / key / name
        os.truncate(path, int(path.stat().st_size * keep))
        del self.model[key]
        self.hurt.add(key)

    @rule(key=KEYS)
    def discard(self, key: str) -> None:
        self.store.discard("stages", key)
        self.model.pop(key, None)
        self.hurt.discard(key)

    @rule()
    def sweep(self) -> None:
        self.store.sweep()
        writing = self.root / ".writing"
        assert not writing.exists() or os.listdir(writing) == []

    @rule()
    def another_process(self) -> None:
        self.store = pickle.loads(pickle.dumps(self.store))

    @invariant()
    def same_keys(self) -> None:
        assert self.store.keys("stages") == sorted(self.model.keys() | self.hurt)


def test_a_store_behaves_like_a_dict_whatever_happens():
    global ASK
    with asking() as ASK:
        machine = StoreLikeADict.TestCase
        machine.settings = settings(
            max_examples=200 * NIGHTLY, stateful_step_count=50, deadline=None
        )
        machine().runTest()


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
