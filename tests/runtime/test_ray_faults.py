"""Sweeps on a Ray cluster of which something is killed: they end as if nothing had happened, by
themselves or run again."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from faults import SMALL, facts
from ray_head import Cluster, node
from running import SWEEP, Ended, Running, holders, title

pytestmark = [pytest.mark.faults, pytest.mark.real, pytest.mark.timeout(900)]


@contextmanager
def driver(cluster: Cluster, out: Path, *arguments: str, **environ: str) -> Iterator[Running]:
    """A small sweep on the cluster, which outlives it."""
    own = {name: value for name, value in cluster.environ.items() if name.startswith("RAY")}
    command = [sys.executable, str(SWEEP), "--out", str(out), *SMALL, *arguments]
    log = out.with_name(f"{out.name}-{time.monotonic_ns()}")
    running = Running(command, cluster.temp, log, **own | {"RAY_ADDRESS": cluster.gcs} | environ)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


def run(cluster: Cluster, out: Path, *arguments: str) -> Ended:
    with driver(cluster, out, *arguments) as running:
        return running.wait()


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed sweep."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    ended = run(cluster, out)
    assert ended.code == 0, ended
    return out


def begins(out: Path, said: str) -> object:
    return "] training" in said


def trains(out: Path, said: str) -> object:
    return list((out / "checkpoints").glob("pack-*"))


def answers(out: Path, said: str) -> object:
    return list((out / "stages").iterdir()) if (out / "stages").is_dir() else []


def judges(out: Path, said: str) -> object:
    return "] judging" in said


class Victim(NamedTuple):
    """Who is killed, and when."""

    title: str
    when: Callable[[Path, str], object]


KILLED = {
    "the engine as it loads": Victim("ray::Engines", begins),
    "the judge as it starts": Victim("ray::ServeReplica", begins),
    "a trial in training": Victim("ray::ImplicitFunc", trains),
    "another, or the one that came back": Victim("ray::ImplicitFunc", trains),
    "the name that holds the judge": Victim("ray::Named", answers),
    "the engine that came back, as it answers": Victim("ray::Engines", answers),
    "Serve's controller": Victim("ray::ServeController", answers),
    "the judge that came back, as it is asked": Victim("ray::ServeReplica", judges),
}
"""All in one sweep, each as soon as its time has come."""


def kill(
    cluster: Cluster, running: Running, out: Path, victims: Sequence[Victim], killed: set[int]
) -> None:
    """SIGKILL to a process of each title, none of those that were `killed`."""
    left = list(victims)

    def strike() -> bool:
        for victim in [one for one in left if one.when(out, running.said)]:
            pids = [pid for pid in holders(cluster.temp)[0] if victim.title in title(pid)]
            for pid in sorted(set(pids) - killed)[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
                left.remove(victim)
        return not left

    running.until(strike)


def test_whoever_is_killed_comes_back_and_nothing_is_lost(
    cluster: Cluster, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with driver(cluster, out) as running:
        kill(cluster, running, out, list(KILLED.values()), set())
        ended = running.wait()
    assert ended.code == 0, ended
    compare(out, undisturbed)


def test_workers_that_train_together_come_back(
    cluster: Cluster, undisturbed: Path, tmp_path: Path
) -> None:
    """One of them, then who controls them. Two add in another order than one does."""
    out, killed = tmp_path / "out", set[int]()
    with driver(cluster, out, "--workers", "2") as running:
        for called in ("ray::RayTrainWorker", "ray::TrainController"):
            kill(cluster, running, out, [Victim(called, trains)], killed)
        assert running.wait().code == 0, running.said
    compare(out, undisturbed, same_bytes=False)


def test_without_who_gives_tasks_out_the_sweep_says_so_and_goes_on_when_run_again(
    cluster: Cluster, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with driver(cluster, out) as running:
        kill(cluster, running, out, [Victim("ray::Leases", trains)], set())
        ended = running.wait()
    assert ended.code == 1 and "Traceback" not in ended.err, ended
    *_, why, then = ended.err.splitlines()  # what Ray itself says comes first
    assert why.startswith("error: Ray lost a part of this sweep: The actor died unexpectedly")
    assert then == "all results are kept: run the same command again"
    assert run(cluster, out).code == 0
    compare(out, undisturbed)


def compare(out: Path, undisturbed: Path, same_bytes: bool = True) -> None:
    """Two workers add in another order: their bytes are those of other runs of two."""
    found, expected = facts(out), facts(undisturbed)
    assert found.left == []
    assert len(found.verdicts) == len(expected.verdicts)
    assert found.adapters.keys() == expected.adapters.keys()
    if same_bytes:
        assert found == expected


def test_a_node_that_is_lost_in_training_and_another_that_joins_change_nothing(
    cluster: Cluster, undisturbed: Path, tmp_path: Path
) -> None:
    """Training is pinned to nodes with a resource that the first node alone has, until it dies."""
    out = tmp_path / "out"
    with node(cluster) as first, driver(cluster, out) as running:
        running.until(lambda: trains(out, running.said))
        first.clean()
        with node(cluster):
            assert running.wait().code == 0, running.said
    compare(out, undisturbed)


def test_two_sweeps_on_one_cluster_and_one_store_do_everything_once(
    cluster: Cluster, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with driver(cluster, out) as one, driver(cluster, out) as other:
        ended = [one.wait(), other.wait()]
    assert [each.code for each in ended] == [0, 0], ended
    compare(out, undisturbed)
    lines = [line for each in ended for line in each.out.splitlines() if "stages trained" in line]
    for word, whole in ((" stages trained", 2), (" judge calls", len(facts(out).verdicts))):
        assert sum(int(line.split(word)[0].split()[-1]) for line in lines) == whole, lines


PHASES = {"training": trains, "answering": answers, "judging": judges}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=("KILL", "TERM"))
def test_a_driver_stopped_in_every_phase_ends_as_if_nothing_had_happened(
    number: int, cluster: Cluster, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for phase in PHASES.values():
        with driver(cluster, out) as running:
            running.until(lambda phase=phase, running=running: phase(out, running.said))
            running.process.send_signal(number)
            ended = running.wait(60)
        if number == signal.SIGTERM:
            assert ended.code == 143, ended
            assert ended.err == "stopped; run the same command again to go on\n"
    assert run(cluster, out).code == 0
    compare(out, undisturbed)
