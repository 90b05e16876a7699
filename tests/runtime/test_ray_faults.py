"""Sweeps on a Ray cluster of which something is killed: they end as if nothing had happened, by
themselves or run again."""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from faults import facts
from mlflow_between import between, server, told_without_mlflow
from ray_head import Cluster
from ray_sweeps import compare, driver, run, trains
from running import Running, holders, title

pytestmark = [pytest.mark.faults, pytest.mark.real, pytest.mark.timeout(900)]


def begins(out: Path, said: str) -> object:
    return "] training" in said


def answers(out: Path, said: str) -> object:
    return "groups of" in said and (out / "stages").is_dir() and list((out / "stages").iterdir())


def judges(out: Path, said: str) -> object:
    return "] judging" in said


class Victim(NamedTuple):
    """Who is killed, and when."""

    title: str
    when: Callable[[Path, str], object]


KILLED = {
    "the engine as it loads": Victim("Engines", begins),
    "the judge as it starts": Victim("ray::ServeReplica", begins),
    "a trial in training": Victim("ray::ImplicitFunc", trains),
    "another, or the one that came back": Victim("ray::ImplicitFunc", trains),
    "the name that holds the judge": Victim("ray::Named", answers),
    "the engine that came back, as it answers": Victim("Engines", answers),
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
    cluster: Cluster, undisturbed_on_ray: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with driver(cluster, out) as running:
        kill(cluster, running, out, list(KILLED.values()), set())
        ended = running.wait()
    assert ended.code == 0 and "Traceback" not in ended.err, ended
    assert "was lost; another goes on from its last checkpoint" in ended.out, ended.out
    compare(out, undisturbed_on_ray)


def test_workers_that_train_together_come_back(
    cluster: Cluster, undisturbed_on_ray: Path, tmp_path: Path
) -> None:
    """One of them, then who controls them. Two add in another order than one does."""
    out, killed = tmp_path / "out", set[int]()
    with driver(cluster, out, "--workers", "2") as running:
        for called in ("ray::RayTrainWorker", "ray::TrainController"):
            kill(cluster, running, out, [Victim(called, trains)], killed)
        assert running.wait().code == 0, running.said
    compare(out, undisturbed_on_ray, same_bytes=False)


def test_who_gives_tasks_out_comes_back_twice(
    cluster: Cluster, undisturbed_on_ray: Path, tmp_path: Path
) -> None:
    """What is over is neither done again nor taken for another sweep's."""
    out, killed = tmp_path / "out", set[int]()
    with driver(cluster, out) as running:
        for _ in range(2):
            kill(cluster, running, out, [Victim("ray::Leases", trains)], killed)
        ended = running.wait()
    assert ended.code == 0 and "Traceback" not in ended.err, ended
    assert ended.out.count("note: who gives tasks out was lost") == 2, ended.out
    assert "another sweep trained" not in ended.out
    compare(out, undisturbed_on_ray)


def test_two_sweeps_on_one_cluster_and_one_store_do_everything_once(
    cluster: Cluster, undisturbed_on_ray: Path, tmp_path: Path
) -> None:
    """Both use both engines that answer."""
    out, two = tmp_path / "out", ("--set", "execution.engine_replicas=2")
    with driver(cluster, out, *two) as one, driver(cluster, out, *two) as other:
        ended = [one.wait(), other.wait()]
    assert [each.code for each in ended] == [0, 0], ended
    compare(out, undisturbed_on_ray)
    judged = len(facts(out).verdicts)
    for what, whole in (("stage", 2), ("judge call", judged), ("engine start", 3)):
        assert sum(one.told(what) for one in ended) == whole, ended


def titles(cluster: Cluster) -> str:
    """Of all processes on the cluster."""
    return " ".join(map(title, holders(cluster.temp)[0]))


def test_a_driver_that_is_killed_takes_neither_engine_nor_judge_from_another(
    cluster: Cluster, undisturbed_on_ray: Path, tmp_path: Path
) -> None:
    """Each has a store of its own, so the other has to ask both. The first is held where it has
    both, that it may not end by itself before the other wants them."""
    first, second = tmp_path / "first", tmp_path / "second"
    with driver(cluster, first) as one:
        one.until(lambda: all(who in titles(cluster) for who in ("Engines", "ServeReplica")))
        one.process.send_signal(signal.SIGSTOP)
        with driver(cluster, second) as other:
            other.until(lambda: trains(second))
            one.kill()
            ended = other.wait()
    assert ended.code == 0, ended
    assert "; 0 engine starts;" in ended.out, "both were there, and stayed"
    compare(second, undisturbed_on_ray)
    assert run(cluster, first).code == 0
    compare(first, undisturbed_on_ray)


def test_an_mlflow_that_hangs_from_the_middle_of_training_on_costs_a_line(
    cluster: Cluster, undisturbed_on_ray: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with server(tmp_path) as url, between(url, tmp_path / "between") as there:
        with driver(cluster, out, MLFLOW_TRACKING_URI=there.url) as running:
            running.until(lambda: trains(out))
            there.file.write_text("hangs")
            told_without_mlflow(running.wait())
        there.file.write_text("")
        with driver(cluster, out, MLFLOW_TRACKING_URI=there.url) as running:
            ended = running.wait()
        assert ended.code == 0 and "(not reached)" not in ended.out, ended
    compare(out, undisturbed_on_ray)


def test_a_disk_that_is_full_as_training_begins_is_named_in_a_line(
    cluster: Cluster, small_disk: Path, tmp_path: Path
) -> None:
    """Tune writes there first. What is printed goes elsewhere."""
    out = tmp_path / "out"
    out.symlink_to(small_disk / "out")
    (small_disk / "out").mkdir()
    with driver(cluster, out) as running:
        running.until(lambda: begins(out, running.said))
        with suppress(OSError):
            (small_disk / "filler").write_bytes(bytes(32 * 2**20))
        ended = running.wait()
    (line,) = ended.err.splitlines()
    assert ended.code == 2 and str(out) in line and "No space left on device" in line, ended


PHASES: dict[str, Callable[[Path, str], object]] = {
    "training": trains,
    "answering": lambda out, said: "] answering" in said,
    "judging": judges,
}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=("KILL", "TERM"))
def test_a_driver_stopped_in_every_phase_ends_as_if_nothing_had_happened(
    number: int, cluster: Cluster, undisturbed_on_ray: Path, tmp_path: Path
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
    compare(out, undisturbed_on_ray)
