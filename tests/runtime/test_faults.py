"""Whatever happens to a sweep, run again it ends as if nothing had happened: the same bytes,
nothing done or counted twice, nothing left behind.

Faults strike at exact moments: just before, or after, something of a kind is stored. They strike
one after the other: each run begins with what the last one left.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import Facts, Sweeps, facts, sweeps
from running import summary_of

pytestmark = pytest.mark.timeout(900)

STORED = ("references", "checkpoints", "stages", "measures", "generations", "verdicts")
"""In the order of a sweep."""
MOMENTS = [f"{when}{kind}" for kind in STORED for when in ("", "after ")] + ["report", "set_tag"]
SIGNALS = {
    "KILL": ("kill -KILL $PID", -9),
    "TERM": ("kill -TERM $PID", 143),
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


@pytest.mark.parametrize("signal", SIGNALS)
def test_stopped_at_every_moment_it_ends_as_if_nothing_had_happened(
    signal: str, parent: Sweeps, undisturbed: Facts, tmp_path: Path
) -> None:
    out, (do, code) = tmp_path / "out", SIGNALS[signal]
    for moment in MOMENTS:
        ended = parent.run(out, moment, do)
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
    whole = [line for ended in said for line in ended.out.splitlines() if "stages trained" in line]
    trained, judged = (
        sum(int(line.split(word)[0].split()[-1]) for line in whole)
        for word in (" stages trained", " judge calls")
    )
    assert (trained, judged) == (2, len(undisturbed.verdicts)), whole
