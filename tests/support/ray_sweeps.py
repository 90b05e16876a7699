"""The small sweep on a Ray cluster that something happens to, and that its end is as ever."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from faults import SMALL, facts
from programs import SWEEP, Ended
from ray_head import Cluster
from running import Running


@contextmanager
def driver(
    cluster: Cluster,
    out: Path,
    *arguments: str,
    small: Sequence[str] = SMALL,
    **environ: str,
) -> Iterator[Running]:
    """A small sweep on the cluster, which outlives it."""
    own = {name: value for name, value in cluster.environ.items() if name.startswith("RAY")}
    command = [sys.executable, str(SWEEP), "--out", str(out), *small, *arguments]
    log = out.with_name(f"{out.name}-{time.monotonic_ns()}")
    running = Running(command, cluster.temp, log, **own | {"RAY_ADDRESS": cluster.gcs} | environ)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


def run(cluster: Cluster, out: Path, *arguments: str) -> Ended:
    """From start to end."""
    with driver(cluster, out, *arguments) as running:
        return running.wait()


def compare(out: Path, undisturbed: Path, same_bytes: bool = True) -> None:
    """Two workers add in another order: their bytes are those of other runs of two."""
    found, expected = facts(out), facts(undisturbed)
    assert found.left == []
    assert len(found.verdicts) == len(expected.verdicts)
    assert found.adapters.keys() == expected.adapters.keys()
    if same_bytes:
        assert found == expected


def trains(out: Path, said: str = "") -> list[Path]:
    """Checkpoints, once there are any."""
    return list((out / "checkpoints").glob("pack-*"))
