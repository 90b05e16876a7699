"""How far a sweep is, and how long it takes: lines by a clock of the test's own."""

from pathlib import Path

import pytest

from raycib.runtime import progress
from raycib.runtime.progress import ProgressView, Speed


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_what_was_there_at_once_tells_nothing_of_the_speed(clock: Clock) -> None:
    """After it, 2 of 6 in 10 s: 4 take 20 s, a quarter more or a fifth less."""
    speed = Speed()
    assert speed.left(0, 10) == ""
    clock.now += 1
    assert speed.left(4, 10) == "", "others had done it"
    clock.now += 10
    assert speed.left(4, 10) == ""
    assert speed.left(6, 10) == "16 to 25 s left"
    clock.now += 10
    assert speed.left(10, 10) == "0 to 0 s left"


def test_a_phase_is_told_at_times_with_what_is_done_and_left_of_it(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    view = ProgressView(tmp_path, 0)
    view.enter("answering")
    for done in range(5):
        view.count(done, 5, f"{done} of 5 models done")
        clock.now += 16
    view.enter("judging")
    view.count(0, 300, "0 of 300 answers read")
    clock.now += 31
    view.count(256, 300, "256 of 300 answers read")
    view.count(0, 9, "0 of 9 answers read by another")
    clock.now += 60
    view.count(6, 9, "6 of 9 answers read by another")
    assert capsys.readouterr().out.splitlines() == [
        "[    0 s] answering",
        "[   32 s] answering, 2 of 5 models done, 38 to 60 s left",
        "[   64 s] answering, 4 of 5 models done, 13 to 20 s left",
        "[   80 s] judging",
        "[  111 s] judging, 256 of 300 answers read, 4 to 7 s left",
        "[  171 s] judging, 6 of 9 answers read by another, 24 to 38 s left",
    ]
