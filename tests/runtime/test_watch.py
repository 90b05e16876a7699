"""What holds a Ray together is missed when nobody listens there for too long, and not before. The
clock is the test's, and it waits for looks: a busy machine changes nothing."""

import socket
import time
from pathlib import Path
from queue import Queue
from types import SimpleNamespace

import pytest

from raycib.runtime import watch

LOOK_S = 0.02


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What watches look at, in seconds: `clock.now` is set."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(watch, "LOOK_S", LOOK_S)
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Queue[bool]:
    """What each look found."""
    found: Queue[bool] = Queue()
    listens = watch._listens
    monkeypatch.setattr(watch, "_listens", lambda place: found.put(one := listens(place)) or one)
    return found


def look(looks: Queue[bool], found: bool) -> None:
    """Wait for two looks that find this, the second of which began by now."""
    for _ in range(2):
        while looks.get(timeout=60) != found:
            pass


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["head", "raylet"])
def test_who_is_gone_for_too_long_is_named_once(
    family: socket.AddressFamily, tmp_path: Path, clock: SimpleNamespace, looks: Queue[bool]
) -> None:
    path = str(tmp_path / "socket")
    listening = socket.socket(family)
    listening.bind(path if family == socket.AF_UNIX else ("127.0.0.1", 0))
    listening.listen(1000)
    place = path if family == socket.AF_UNIX else listening.getsockname()
    said: Queue[str] = Queue()
    watching = watch.Watch({"it": (place, 40)}, said.put)
    look(looks, True)
    clock.now = 1000
    while not looks.empty():
        looks.get()
    look(looks, True)
    assert said.empty(), "it was there, however long"
    listening.close()
    look(looks, False)
    clock.now = 1039
    look(looks, False)
    assert said.empty(), "not for too long"
    clock.now = 1041
    assert said.get(timeout=60) == "it is gone"
    while not looks.empty():
        looks.get()
    time.sleep(10 * LOOK_S)
    assert looks.empty() and said.empty(), "nobody looks any more"
    watching.close()


def test_after_it_is_closed_nothing_is_missed(clock: SimpleNamespace) -> None:
    said: Queue[str] = Queue()
    watch.Watch({"it": ("/nowhere", 1)}, said.put).close()
    clock.now = 1000
    time.sleep(10 * LOOK_S)
    assert said.empty()


def test_a_raylet_without_a_listener_is_missed_at_once_and_a_busy_one_is_not(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    """A full queue of those who wait to be let in refuses nobody: they are told to try again."""
    path = str(tmp_path / "socket")
    said: list[str] = []
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(path)
        listening.listen(0)
        first.connect(path)
        watching = watch.Watch({"it": (path, watch.NODE_S)}, said.append)
        watching.close()
        with socket.socket(socket.AF_UNIX) as second:
            second.settimeout(5)
            with pytest.raises(BlockingIOError):
                second.connect(path)
        watching.check()
        assert not said
    watching.check()
    assert said == ["it is gone"]
