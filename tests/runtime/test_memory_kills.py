"""Processes that are ended for want of memory: their adapters are trained in parts, and that is
said."""

import subprocess
import sys
from pathlib import Path

import pytest
from memory_kills import no_more_memory
from ray_head import Cluster
from ray_sweeps import compare, driver, trains
from running import holders, title

from raycib.models.device import ended_for_memory

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
