"""Two engines that answer, and two replicas of the judge, on a cluster; one engine is killed."""

import os
import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from ray_head import Cluster, head
from ray_sweeps import compare, driver
from running import SMALL, Reference, holders, summary_of, title

pytestmark = [pytest.mark.faults, pytest.mark.real, pytest.mark.timeout(900)]

TWO = ("--set", "execution.engine_replicas=2", "--set", "execution.judge_replicas=2")


def answering(cluster: Cluster, out: Path) -> int | None:
    """An engine that has claimed a model, to answer for it."""
    for pid in holders(cluster.temp)[0]:
        with suppress(OSError):
            if "Engines" in title(pid):
                opened = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
                if any(one.startswith(f"{out}/.claims/generations") for one in opened):
                    return pid
    return None


def counted(said: str, who: str) -> list[int]:
    """What each of two did."""
    (line,) = re.findall(rf"2 {who} (\d+), (\d+)", said)
    return [int(one) for one in line]


def test_two_of_each_give_the_bytes_of_one_though_one_is_killed_as_it_answers(
    cluster: Cluster, reference: Reference, tmp_path: Path
) -> None:
    """The other one, or itself when it is back, does what is left."""
    out = tmp_path / "out"
    with driver(cluster, out, *TWO, small=SMALL) as running:
        os.kill(running.until(lambda: answering(cluster, out)), signal.SIGKILL)
        ended = running.wait()
    assert ended.code == 0 and "Traceback" not in ended.err, ended
    assert ended.out.count("note: an engine was lost; what it had is asked again") == 1
    assert sum(counted(ended.out, "engines answered for")) == 3, ended.out
    read = counted(
        ended.out, "replicas of the judge read"
    )  # one may be there long before the other
    assert sum(read) == summary_of(out)["counts"]["judge_calls"], ended.out
    assert "; 3 engine starts;" in ended.out, "two that answer, and the judge's application"
    compare(out, reference.out)
    left = [title(pid) for pid in holders(cluster.temp)[0]]
    assert not [one for one in left if "Engines" in one or "ServeReplica" in one]


AFTER_TRAINING = (
    "--set", "execution.judge_starts_early=false",
    "--set", "execution.engine_gpus=1", "--set", "execution.judge_gpus=1",
)  # fmt: skip


def test_by_itself_there_is_an_engine_for_each_gpu_that_training_left(
    undisturbed_on_ray: Path, tmp_path: Path
) -> None:
    """Ray believes in two GPUs; engines look, and find none."""
    out = tmp_path / "out"
    with head(2, "--num-gpus=2") as cluster, driver(cluster, out, *AFTER_TRAINING) as running:
        ended = running.wait()
    assert ended.code == 0, ended
    assert sum(counted(ended.out, "engines answered for")) == 3, "whoever loads first has more"
    assert "replicas of the judge" not in ended.out, "one reads a thousand conversations"
    compare(out, undisturbed_on_ray)
