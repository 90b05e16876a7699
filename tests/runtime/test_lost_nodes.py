"""Nodes of a cluster that go, with a word before or without, and what holds a cluster together:
a sweep goes on elsewhere, or ends with a line and goes on when it is run again."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from faults import RARE
from ray_head import Cluster, head, node, own_address, part
from ray_sweeps import compare, driver, run, trains
from running import NAME, adapters, run_here

pytestmark = [pytest.mark.faults, pytest.mark.real, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def empty() -> Iterator[Cluster]:
    """A cluster whose head has no CPU: all work is on other nodes."""
    with head(cpus=0, host=own_address()) as started:
        yield started


def steps_done(out: Path) -> int:
    """Of all groups, as the driver shows it."""
    file = out / NAME / "progress.json"
    groups = json.loads(file.read_text())["groups"] if file.exists() else {}
    return sum(group["done"] for group in groups.values())


def test_a_node_that_dies_in_training_and_another_that_joins_change_nothing(
    empty: Cluster, undisturbed_on_ray: Path, tmp_path: Path
) -> None:
    """Trials, engine, judge and all go with it; only the driver is elsewhere."""
    out = tmp_path / "out"
    with node(empty, cpus=4) as first, driver(empty, out) as running:
        running.until(lambda: trains(out))
        psutil.Process(part(first, "raylet")).kill()
        first.process.wait(60)
        with node(empty, cpus=4):
            ended = running.wait()
    assert ended.code == 0 and "Traceback" not in ended.err, ended
    assert "was lost; another goes on from its last checkpoint" in ended.out
    compare(out, undisturbed_on_ray)


LONG = (*RARE, "--set", "trainer.epochs=8", "--set", "execution.checkpoint_every=1000")
"""72 steps a group, and no checkpoint before its last."""


def test_a_node_with_notice_writes_a_checkpoint_and_its_work_goes_on_elsewhere(
    empty: Cluster, tmp_path: Path
) -> None:
    """`ray start --block` drains its node for half a minute when it gets SIGTERM."""
    out, alone = tmp_path / "out", tmp_path / "alone"
    with node(empty) as first, driver(empty, out, small=LONG) as running:
        running.until(lambda: steps_done(out) > 2)
        first.process.send_signal(signal.SIGTERM)
        saved = running.until(lambda: trains(out))
        with node(empty):
            assert running.wait().code == 0, running.said
    steps = {int(one.name.rpartition("-")[2]) for one in saved}
    assert max(steps) < 72, steps
    run_here(alone, *LONG)
    assert adapters(out) == adapters(alone)


@pytest.mark.parametrize("program", ["raylet", "gcs_server"])
def test_without_the_head_a_sweep_ends_with_a_line_and_goes_on_on_another_cluster(
    program: str, undisturbed_on_ray: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with head() as cluster, driver(cluster, out) as running:
        running.until(lambda: trains(out))
        psutil.Process(part(cluster.head, program)).kill()
        ended = running.wait(180)
        assert ended.code == 1 and "Traceback" not in ended.err, ended
        *_, why, then = ended.err.splitlines()  # what Ray itself says comes first
        assert why.startswith("error: Ray lost a part of this sweep: "), ended
        assert then == "all results are kept: run the same command again"
    with head() as cluster:
        assert run(cluster, out).code == 0
    compare(out, undisturbed_on_ray)
