"""Processes that are ended for want of memory: their adapters are trained in parts, and that is
said."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from memory_kills import no_more_memory
from ray_head import Cluster, head
from ray_sweeps import compare, driver, trains
from ray_tasks import joined, run
from running import holders, title

from raycib.models.device import ended_for_memory
from raycib.runtime import train
from raycib.runtime.leases import Ended
from raycib.store import Store

TOGETHER = ("--group-size", "2", "--set", "execution.slots_apart=true")
"""Both adapters of the small sweep in one group, with the bytes that each has alone."""


def test_what_the_system_ends_for_want_of_memory_is_counted() -> None:
    before = ended_for_memory()
    with no_more_memory() as group:
        wants = "import sys; sys.stdin.read(); held = bytearray(1 << 24)"
        program = subprocess.Popen([sys.executable, "-c", wants], stdin=subprocess.PIPE)
        group.write_text(str(program.pid))
        program.communicate()
    assert program.returncode == -9
    assert ended_for_memory() > before


@pytest.mark.faults
@pytest.mark.real
@pytest.mark.timeout(900)
def test_a_group_that_the_system_ended_for_its_memory_comes_back_in_two_parts(
    cluster: Cluster, undisturbed_on_ray: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with driver(cluster, out, *TOGETHER) as running, no_more_memory() as group:
        running.until(lambda: trains(out))
        [trial] = [pid for pid in holders(cluster.temp)[0] if "ray::ImplicitFunc" in title(pid)]
        group.write_text(str(trial))
        ended = running.wait()
    assert ended.code == 0 and "Traceback" not in ended.err, ended
    assert "was lost; another goes on from its last checkpoint" in ended.out
    assert "no memory for 2 adapters at once: 1 and 1 were trained" in ended.out
    compare(out, undisturbed_on_ray)


HELD = 6 << 30
"""Bytes of a job that wants too many."""


@dataclass(frozen=True)
class Hungry:
    """A job that holds much memory until it is ended, the first time."""

    begun: str
    folder: str = "jobs"
    stored_key: str = "0" * 64

    def run(self, store: Store, device: object) -> None:
        """As `AlignedJob`s do."""
        if not Path(self.begun).exists():
            Path(self.begun).touch()
            held = bytearray(b"x") * HELD
            time.sleep(120)
            del held


@pytest.mark.faults
@pytest.mark.real
@pytest.mark.timeout(400)
@pytest.mark.parametrize("workers", [1, 2])
def test_what_rays_memory_monitor_ends_comes_back_in_two_parts(
    workers: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A trial, and a worker of a group of Ray Train. Without it Tune itself would end of the first,
    and the second would come back as it was."""
    import ray

    memory = psutil.virtual_memory()
    share = (memory.total - memory.available + HELD * 2 / 3) / memory.total
    limit = {"RAY_memory_usage_threshold": f"{share:.3f}", "RAY_memory_monitor_refresh_ms": "200"}
    made, queues, parts = train._leases, [], []

    def ended(one: Ended) -> None:
        parts.append((one.well, ray.get(queues[0].parts.remote(one.name))))

    def leases(*asked: Any, **named: Any) -> Any:
        queues.append(made(*asked, **named))
        return queues[0]

    monkeypatch.setattr(train, "_leases", leases)
    hungry = Hungry(str(tmp_path / "begun"))
    with head(3, **limit) as cluster, joined(cluster, sys.modules[__name__]):
        run({"hungry": (hungry,)}, ended, tmp_path, trials=1, workers=workers)
    assert parts == [(True, 2)]
