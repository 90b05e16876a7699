"""A store behaves like a dict, also when much breaks."""

import os
import pickle
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from session import NIGHTLY
from store_child import asking, content, put, sweep

from raycib.store import Record, Store
from raycib.store.sealed import RECORD

pytestmark = pytest.mark.timeout(300 * NIGHTLY)
SIZE = 60
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
        sweep(self.root)
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
