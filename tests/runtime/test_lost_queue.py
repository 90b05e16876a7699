"""The queue of tasks is lost: another one gives out what is not over."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from ray_head import Cluster
from ray_tasks import joined, run

from raycib.runtime.leases import Ended
from raycib.store import Store

pytestmark = [pytest.mark.faults, pytest.mark.real, pytest.mark.timeout(400)]


@dataclass(frozen=True)
class Killing:
    """A job that kills the queue while it is at work, the first times, once the driver has heard of
    the task before it."""

    ran: str
    times: int
    heard: str
    folder: str = "jobs"
    stored_key: str = "0" * 64

    def run(self, store: Store, device: object) -> None:
        """As `AlignedJob`s do."""
        with Path(self.ran).open("a") as file:
            file.write("ran\n")
        if len(Path(self.ran).read_text().splitlines()) <= self.times:
            while not Path(self.heard).exists():
                time.sleep(0.1)
            raylet = psutil.Process().parent()
            assert raylet
            [queue] = [one for one in raylet.children() if "ray::Leases" in " ".join(one.cmdline())]
            queue.kill()


def test_what_is_not_over_is_given_out_anew_and_what_is_over_is_not(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first, last, heard = tmp_path / "first", tmp_path / "last", tmp_path / "heard"
    ended: list[Ended] = []

    def hear(one: Ended) -> None:
        ended.append(one)
        heard.touch()

    ran = {first: 0, last: 2}
    jobs = {p.name: (Killing(str(p), times, str(heard)),) for p, times in ran.items()}
    with joined(cluster, sys.modules[__name__]):
        run(jobs, hear, tmp_path, trials=1, last="last")
    assert [(one.name, one.well) for one in ended] == [("first", True), ("last", True)]
    assert len(last.read_text().splitlines()) == 3
    assert len(first.read_text().splitlines()) == 1
    assert capsys.readouterr().out.count("note: who gives tasks out was lost") == 2
