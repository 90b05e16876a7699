"""A cluster that grows and shrinks by what a sweep asks for, with Ray's own autoscaler."""

from pathlib import Path

import pytest
from growing_cluster import Growing, Seen, growing
from ray_sweeps import compare, driver

pytestmark = [pytest.mark.faults, pytest.mark.real, pytest.mark.timeout(900)]

TWO = (
    "--set", "execution.groups_at_once=2", "--set", "execution.cpus_per_worker=1",
    "--set", "execution.engine_replicas=2", "--set", "execution.engine_cpus=1",
)  # fmt: skip
"""Each group, and then each engine, wants a node for itself."""


def last(there: Growing) -> Seen:
    return there.seen()[-1]


def test_nodes_come_from_none_for_all_groups_at_once_and_go_again(
    undisturbed_on_ray: Path, tmp_path: Path
) -> None:
    """What is asked for is withdrawn once the groups have begun; what a killed driver asked for,
    soon after."""
    out = tmp_path / "out"
    with growing(tmp_path, one={"CPU": 1}) as there:
        there.looking.until(there.seen)
        assert last(there) == (0, 0)
        with driver(there.cluster, out, *TWO) as running:
            running.until(lambda: last(there).asked == 2)
            running.kill()
        there.looking.until(lambda: last(there).asked == 0, 60)
        with driver(there.cluster, out, *TWO) as running:
            running.until(lambda: last(there).asked == 2)
            running.until(lambda: last(there).asked == 0)
            assert max(one.nodes for one in there.seen()) >= 2
            ended = running.wait()
            assert ended.code == 0 and "2 engines answered for" in ended.out, ended
        there.looking.until(lambda: last(there) == (0, 0), 120)
    compare(out, undisturbed_on_ray)
