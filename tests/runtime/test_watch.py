"""What holds a Ray together is missed when nobody listens there for too long, and not before."""

import socket
import time
from pathlib import Path
from queue import Queue

import pytest

from raycib.runtime import watch


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["head", "raylet"])
def test_who_is_gone_for_too_long_is_named_once(
    family: socket.AddressFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.05)
    path = str(tmp_path / "socket")
    listening = socket.socket(family)
    listening.bind(path if family == socket.AF_UNIX else ("127.0.0.1", 0))
    listening.listen(1000)
    place = path if family == socket.AF_UNIX else listening.getsockname()
    said: Queue[str] = Queue()
    watching = watch.Watch({"it": (place, 0.5)}, said.put)
    time.sleep(1)
    assert said.empty()
    listening.close()
    gone = time.monotonic()
    assert said.get(timeout=30) == "it is gone"
    assert time.monotonic() - gone > 0.4
    time.sleep(0.2)
    assert said.empty()
    watching.close()


def test_after_it_is_closed_nothing_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.05)
    said: Queue[str] = Queue()
    watch.Watch({"it": ("/nowhere", 0.2)}, said.put).close()
    time.sleep(0.6)
    assert said.empty()
