"""What goes wrong in what people see of a sweep: it is said once, and not as the sweep ends."""

import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raycib.runtime.live import Live

PATIENCE_S = 60


class Work:
    """As much of a sweep's as is asked first; it fails once it may."""

    def __init__(self) -> None:
        self.view, self.asked, self.may_fail = SimpleNamespace(), 0, threading.Event()

    @property
    def sweep(self) -> Any:
        self.asked += 1
        assert self.may_fail.wait(PATIENCE_S)
        raise ImportError("a library is half there")


@pytest.mark.parametrize(("ends", "told"), [(False, ["MLflow", "report"]), (True, [])])
def test_trouble_is_said_once_and_only_while_the_sweep_goes_on(
    ends: bool, told: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C stops libraries in the middle of what they do."""
    work, said = Work(), ""
    live = Live(work, tmp_path / "sweep", lambda *_: None)  # type: ignore[arg-type]
    deadline = time.monotonic() + PATIENCE_S
    with suppress(KeyboardInterrupt), live:
        if not ends:
            work.may_fail.set()
        while time.monotonic() < deadline and (not work.asked if ends else said.count("\n") < 2):
            said += capsys.readouterr().out
            time.sleep(0.05)
        threading.Timer(0.5, work.may_fail.set).start()
        raise KeyboardInterrupt
    said += capsys.readouterr().out
    assert sorted(line.split()[1] for line in said.splitlines()) == told, said
    assert said.count("(ImportError: a library is half there)") == len(told)
