"""Killed anywhere, a sweep goes on where it was and ends as if nothing had happened."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from running import (
    NAME,
    SMALL,
    Reference,
    Running,
    adapters,
    holders,
    run_sweep,
    scores,
    summary_of,
    sweep,
    title,
    verdicts,
)

from raycib import world

pytestmark = [pytest.mark.faults, pytest.mark.real, pytest.mark.timeout(900)]


ENGINES = "ray::Engines"


def checkpoints(out: Path) -> set[str]:
    """Groups that have saved one."""
    return {entry.name.rpartition("-")[0] for entry in (out / "checkpoints").glob("pack-*")}


def phase(out: Path) -> str:
    """What the sweep says it is doing."""
    file = out / NAME / "progress.json"
    return json.loads(file.read_text())["phase"] if file.exists() else ""


def kill_one(running: Running, name: str) -> None:
    """SIGKILL to one process of the sweep whose title has `name` in it."""

    def found() -> list[int]:
        return [pid for pid, called in running.processes().items() if name in called]

    os.kill(running.until(found)[0], signal.SIGKILL)


def nothing_works_after(seconds: float, folder: Path) -> None:
    """The orphans of a killed driver end by themselves. Two idle ones of Ray take a minute."""
    deadline = time.monotonic() + seconds
    while left := {title(pid) for pid in holders(folder)[0]}:
        if all("DashboardAgent" in name or "RuntimeEnvAgent" in name for name in left):
            return
        assert time.monotonic() < deadline, f"after {seconds:.0f} s there are still {left}"
        time.sleep(0.2)


def test_engines_killed_while_they_answer_and_while_they_judge_change_nothing(
    reference: Reference, tmp_path: Path
) -> None:
    """They start again, and so does what was under way; a second guard takes the first one's
    place."""
    out = Path(shutil.copytree(reference.out, tmp_path / "out"))
    for kind in ("generations", "verdicts"):
        shutil.rmtree(out / kind)
    other = Path(shutil.copytree(world.folder("guard"), tmp_path / "other"))
    settings = other / "tokenizer_config.json"
    settings.write_text(settings.read_text() + "\n")  # the same judge by another name
    with sweep(out, *SMALL, "--judge", f"world:guard,{other}") as running:
        running.until(lambda: phase(out) == "answering")
        kill_one(running, ENGINES)
        running.until(lambda: verdicts(out))
        kill_one(running, ENGINES)
        ended = running.wait()
    assert ended.code == 0, ended
    found = scores(out)
    theirs = {key: cell.pop("hrr_by_judge") for key, cell in found.items()}
    assert found == scores(reference.out)
    assert {key: list(rates.values()) for key, rates in theirs.items()} == {
        key: [cell["hrr"]] for key, cell in found.items()
    }
    assert summary_of(out)["counts"]["stages_trained"] == 0


@pytest.fixture(scope="module")
def battered(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep whose driver was killed in training; the tests below go on with it, in order."""
    return tmp_path_factory.mktemp("battered") / "out"


def test_a_driver_killed_in_training_leaves_no_process_and_a_checkpoint(battered: Path) -> None:
    with sweep(battered, *SMALL) as running:
        running.until(lambda: checkpoints(battered))
        assert phase(battered) == "training"
        running.kill()
        nothing_works_after(60, running.temp)
    assert not adapters(battered) or len(adapters(battered)) == 1
    assert checkpoints(battered)


def test_an_interrupted_sweep_ends_with_130_and_leaves_no_process(battered: Path) -> None:
    with sweep(battered, *SMALL) as running:
        running.until(lambda: phase(battered) == "training" and "raining" in running.said)
        running.process.send_signal(signal.SIGINT)
        ended = running.wait(120)
        nothing_works_after(60, running.temp)
    assert ended.code == 130, ended
    assert ended.err.endswith("stopped; run the same command again to go on\n")
    assert "Traceback" not in ended.err
    assert "(raylet)" not in ended.out, "what Ray was asked last ends with it"


def test_killed_while_answering_it_has_the_adapters_of_an_undisturbed_sweep(
    reference: Reference, battered: Path
) -> None:
    with sweep(battered, *SMALL) as running:
        running.until(lambda: phase(battered) == "answering")
        running.kill()
        nothing_works_after(60, running.temp)
    assert adapters(battered) == adapters(reference.out)
    assert not verdicts(battered)


def test_killed_while_judging_it_asks_only_what_it_had_not_heard(
    reference: Reference, battered: Path
) -> None:
    trained = adapters(battered)
    with sweep(battered, *SMALL) as running:
        running.until(lambda: verdicts(battered))
        running.kill()
        nothing_works_after(60, running.temp)
    heard = verdicts(battered)
    whole = summary_of(reference.out)["counts"]["judge_calls"]
    print(f"killed after {len(heard)} of {whole} verdicts")
    run_sweep(battered, *SMALL)
    counts = summary_of(battered)["counts"]
    assert counts["judge_calls"] == whole - len(heard)
    assert len(verdicts(battered)) == len(set(verdicts(battered))) == whole
    assert set(heard) <= set(verdicts(battered))
    assert counts["stages_trained"] == 0
    assert adapters(battered) == trained
    assert scores(battered) == scores(reference.out)
    assert counts["reference_forwards"] == counts["distinct_examples"]
