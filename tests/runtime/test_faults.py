"""Whatever happens to a sweep, run again it ends as if nothing had happened: the same bytes,
nothing done or counted twice, nothing left behind.

Faults strike at exact moments: just before, or after, something of a kind is stored. They strike
one after the other: each run begins with what the last one left.
"""

import os
import shutil
import signal as signals
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle, product
from pathlib import Path

import pytest
from faults import Facts, Sweeps, facts, sweeps
from mlflow_between import TROUBLES, between, server, told_without_mlflow
from programs import Ended
from running import summary_of

pytestmark = pytest.mark.timeout(900)

STORED = ("references", "checkpoints", "stages", "measures", "generations", "verdicts")
"""In the order of a sweep."""
MOMENTS = [f"{when}{kind}" for kind in STORED for when in ("", "after ")] + ["report", "set_tag"]
SIGNALS = {
    "KILL": ("kill -KILL $PID", -9),
    "TERM": ("kill -TERM $PID", 143),
    "HUP": ("kill -HUP $PID", 129),
    "INT": ("kill -INT $PID", 130),
    "INT twice": ("kill -INT $PID; sleep .05; kill -INT $PID", 130),
}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweeps]:
    """Where sweeps start."""
    with sweeps(tmp_path_factory.mktemp("sweeps")) as started:
        yield started


@pytest.fixture(scope="module")
def undisturbed(parent: Sweeps, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """What an undisturbed sweep leaves."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    ended = parent.run(out)
    assert ended.code == 0, ended
    found = facts(out)
    assert (len(found.adapters), len(found.verdicts), found.left) == (2, 12, [])
    return found


@pytest.mark.parametrize(
    ("signal", "moments"),
    [
        pytest.param(None, [*STORED, "report", "set_tag"], id="one of them at each"),
        *(pytest.param(name, MOMENTS, id=name, marks=pytest.mark.faults) for name in SIGNALS),
    ],
)
def test_stopped_at_every_moment_it_ends_as_if_nothing_had_happened(
    signal: str | None, moments: list[str], parent: Sweeps, undisturbed: Facts, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for moment, name in zip(moments, cycle([signal] if signal else SIGNALS), strict=False):
        do, code = SIGNALS[name]
        ended = parent.run(out, moment, do=do)
        assert ended.code == code, (moment, ended)
        assert code < 0 or ended.err == "stopped; run the same command again to go on\n", moment
    assert parent.run(out).code == 0
    assert facts(out) == undisturbed
    counts = summary_of(out)["counts"]
    assert (counts["stages_trained"], counts["stages_reused"], counts["judge_calls"]) == (0, 2, 0)


def test_two_sweeps_on_one_store_share_the_work(
    parent: Sweeps, undisturbed: Facts, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    both = [parent.start(out) for _ in range(2)]
    said = [one.wait() for one in both]
    assert [ended.code for ended in said] == [0, 0], said
    assert facts(out) == undisturbed
    trained, judged = (sum(ended.told(what) for ended in said) for what in ("stage", "judge call"))
    assert (trained, judged) == (2, len(undisturbed.verdicts)), said


def refused(ended: Ended, said: str) -> None:
    """It ended with a line that says so."""
    assert ended.code in (1, 2), ended
    *_, line = ended.err.splitlines()
    assert said in line and "Traceback" not in ended.err, ended.err


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param(["references", "checkpoints", "report"], id="at times"),
        pytest.param([*STORED, "report"], id="always", marks=pytest.mark.faults),
    ],
)
def test_a_full_disk_is_named_in_a_line_and_nothing_is_lost(
    moments: list[str], small_disk: Path, parent: Sweeps, undisturbed: Facts
) -> None:
    """A moment need not come: a checkpoint that goes makes room for what is stored after it."""
    out = small_disk / "out"
    full = []
    for moment in moments:
        ended = parent.run(out, moment, do="cat /dev/zero > $OUT/filler")
        if not (out / "filler").exists():
            assert ended.code == 0, (moment, ended)
            continue
        refused(ended, "No space left on")
        (out / "filler").unlink()
        full.append(moment)
    assert {"references", "checkpoints", "report"} <= set(full) and len(full) >= len(moments) - 1
    assert parent.run(out).code == 0
    assert facts(out) == undisturbed


@pytest.mark.faults
def test_a_store_that_may_only_be_read_is_named_in_a_line_and_nothing_is_lost(
    small_disk: Path, parent: Sweeps, undisturbed: Facts
) -> None:
    """It becomes so between two runs: a disk that is being written to stays writable."""
    out = small_disk / "out"
    for moment in STORED:
        assert parent.run(out, moment, do=SIGNALS["KILL"][0]).code == -signals.SIGKILL
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        assert "Read-only file system" in parent.run(out).refusal  # before anything is begun
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert parent.run(out).code == 0
    assert facts(out) == undisturbed


def test_a_clock_that_jumps_back_at_every_moment_changes_nothing(
    parent: Sweeps, undisturbed: Facts, tmp_path: Path
) -> None:
    """An hour at each of them; it begins in 2040."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler to make the clock jump with")
    out, clock = tmp_path / "out", tmp_path / "clock"
    clock.write_text(str(14 * 365 * 86400))
    jump = "echo $(($(cat $CLOCK) - 3600)) > $CLOCK"
    assert parent.run(out, *MOMENTS, do=jump, CLOCK=str(clock)).code == 0
    assert int(clock.read_text()) == 14 * 365 * 86400 - 3600 * len(MOMENTS)
    records = (file.read_text() for file in (out / "stages").glob("*/record.json"))
    assert all('"created": "2040' in record for record in records)
    assert facts(out) == undisturbed


ASKED = ("get_experiment_by_name", "log_batch", "log_artifact")
"""What a server of MLflow is asked for first, in the middle, and last."""
WRITTEN = ("get_experiment_by_name", "write", "log_artifact")
"""The same of its database."""
MLFLOW_S = 150
"""A sweep whose MLflow does not answer ends within that."""


def finished(undisturbed_out: Path, out: Path) -> Path:
    """A finished sweep of which MLflow has not heard."""
    unknown = shutil.ignore_patterns("mlflow.db", "mlartifacts", ".mlflow.db.lock")
    return Path(shutil.copytree(undisturbed_out, out, ignore=unknown))


@pytest.mark.faults
def test_an_mlflow_that_breaks_costs_a_line_and_hears_of_it_later(
    parent: Sweeps, undisturbed: Facts, tmp_path: Path
) -> None:
    """It hangs, hangs up or fails, at its first request, in the middle and at the last."""
    first = tmp_path / "first"
    assert parent.run(first, MLFLOW_TRACKING_URI="http://127.0.0.1:1").code == 0
    (tmp_path / "server").mkdir()
    with server(tmp_path / "server") as url, ExitStack() as all_of_them:
        begun = []
        for number, (moment, trouble) in enumerate(product(ASKED, TROUBLES)):
            there = all_of_them.enter_context(between(url, tmp_path / f"between-{number}"))
            out = finished(first, tmp_path / f"out-{number}")
            do = f"echo {trouble} > {there.file}"
            own = {"MLFLOW_TRACKING_URI": there.url, "MLFLOW_EXPERIMENT_NAME": f"e{number}"}
            begun.append((out, there, own, parent.start(out, [moment], do, **own)))
        for _, there, _, sweep in begun:
            told_without_mlflow(sweep.wait(MLFLOW_S))
            there.file.write_text("")
        again = [parent.start(out, **own) for out, _, own, _ in begun]
        for (out, *_), sweep in zip(begun, again, strict=True):
            ended = sweep.wait()
            assert ended.code == 0 and "(not reached)" not in ended.out, ended
            assert facts(out) == undisturbed


@pytest.mark.faults
def test_an_mlflow_database_that_another_process_locks_costs_a_line(
    parent: Sweeps, undisturbed: Facts, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    assert parent.run(first, MLFLOW_TRACKING_URI="http://127.0.0.1:1").code == 0
    hold = "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1]); "
    hold += "c.execute('BEGIN EXCLUSIVE'); print(flush=True); time.sleep(600)"
    begun = []
    for number, moment in enumerate(WRITTEN):
        out = finished(first, tmp_path / f"out-{number}")
        do = f'{sys.executable} -c "{hold}" $OUT/mlflow.db >$OUT/locked & echo $! >$OUT/locker; '
        do += "until [ -s $OUT/locked ]; do sleep .05; done"
        begun.append((out, parent.start(out, [moment], do)))
    for out, sweep in begun:
        told_without_mlflow(sweep.wait(MLFLOW_S))
        os.kill(int((out / "locker").read_text()), signals.SIGKILL)
        ended = parent.run(out)
        assert ended.code == 0 and "(not reached)" not in ended.out, ended
        assert facts(out) == undisturbed


@pytest.mark.faults
def test_a_sweep_that_is_suspended_keeps_what_it_has_and_the_other_waits_for_it(
    parent: Sweeps, undisturbed: Facts, tmp_path: Path
) -> None:
    """For 40 s, each at another moment; another sweep on the same store has to do without it."""
    begun = []
    for number, moment in enumerate(("references", "after checkpoints", "generations", "verdicts")):
        out = tmp_path / f"out-{number}"
        one = parent.start(out, [moment], "kill -STOP $PID; sleep 40; kill -CONT $PID")
        begun.append((out, one, parent.start(out)))
    for out, *both in begun:
        assert [one.wait().code for one in both] == [0, 0]
        assert facts(out) == undisturbed


@pytest.mark.faults
def test_a_sweep_killed_beside_another_leaves_its_work_to_that(
    parent: Sweeps, undisturbed: Facts, tmp_path: Path
) -> None:
    for number, moment in enumerate(("references", "checkpoints", "stages", "generations")):
        out = tmp_path / f"out-{number}"
        killed = parent.start(out, [moment], "sleep 2; kill -KILL $PID")
        other = parent.start(out)
        assert killed.wait().code in (-9, 0), "0 where the other had done all of it before"
        assert other.wait().code == 0
        assert facts(out) == undisturbed
