"""What a sweep leaves when it is over, however it ends: its results, and Ray's logs."""

import os
import signal
from pathlib import Path

import pytest
from faults import SMALL
from own_room import room
from ray_sweeps import trains

pytestmark = [pytest.mark.faults, pytest.mark.real, pytest.mark.timeout(600)]


def not_meant_to_stay(left: list[str]) -> list[str]:
    """Ray's logs are, and torch's cache, one of a user."""
    return [one for one in left if not one.startswith(("tmp/ray-room", "tmp/torchinductor_"))]


ENDS = {
    "done": (None, "", 0, 0),
    "the driver by SIGTERM in training": (trains, "sweeps/lambda_grid.py", signal.SIGTERM, 143),
    "the driver by SIGKILL in training": (trains, "sweeps/lambda_grid.py", signal.SIGKILL, 137),
    "the raylet in training": (trains, "raylet/raylet", signal.SIGKILL, 1),
    "the GCS in training": (trains, "gcs_server", signal.SIGKILL, 1),
    "the engine": (trains, "ray::Engines", signal.SIGKILL, 0),
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_but_results_and_logs(end: str, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a room of one's own needs root")
    out = tmp_path / "out"
    when, who, number, code = ENDS[end]
    with room(out, *SMALL) as there:
        if who:
            there.until(lambda: when(out))
            there.kill(who, number)
        ended = there.wait()
        left = there.left(seconds=90)
    assert ended.code == code, ended
    if code == 1:
        assert "Traceback" not in ended.err, ended
        assert ended.err.splitlines()[-1] == "all results are kept: run the same command again"
    assert not_meant_to_stay(left) == []


ODD = """
hostname nowhere-at-all
ulimit -n 256
umask 077
mount -o remount,size=1m /dev/shm
mount -t tmpfs -o ro none /mnt
export HOME=/mnt LANG=C
"""
"""A name that leads nowhere, few files, hardly any shared memory, no home to write to."""


def test_an_odd_machine_is_no_news(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a room of one's own needs root")
    with room(tmp_path / "a b#c%d", *SMALL, ODD=ODD) as there:
        ended = there.wait()
        left = there.left(seconds=90)
    assert (ended.code, ended.err) == (0, ""), ended
    assert not_meant_to_stay(left) == []
