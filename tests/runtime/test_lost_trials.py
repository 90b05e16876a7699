"""A trial that Tune gives up: what it had in hand is another's."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray_head import Cluster
from ray_tasks import joined, run

from raycib.runtime.leases import Ended
from raycib.store import Store

pytestmark = [pytest.mark.faults, pytest.mark.real, pytest.mark.timeout(400)]


@dataclass(frozen=True)
class Killing:
    """A job whose process is killed the first time, and that says who did it in the end."""

    done: str
    folder: str = "jobs"
    stored_key: str = "0" * 64

    def run(self, store: Store, device: object) -> None:
        """As `AlignedJob`s do."""
        first = Path(self.done).with_suffix(".first")
        if not first.exists():
            first.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        Path(self.done).write_text(str(os.getpid()))


def test_what_a_trial_had_in_hand_that_is_not_started_again_is_done_by_another(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without it the other trial would wait for ever: a third task comes after both. Tune forgives
    no loss here, the queue seven."""
    import ray.tune

    forgiving = ray.tune.FailureConfig
    monkeypatch.setattr(ray.tune, "FailureConfig", lambda **_: forgiving(max_failures=0))
    done = tmp_path / "done"
    ended: list[Ended] = []
    with joined(cluster, sys.modules[__name__]):
        jobs = {"killing": (Killing(str(done)),), "other": (), "third": ()}
        run(jobs, ended.append, tmp_path, trials=2, last="third")
    assert {one.name: one.well for one in ended} == dict.fromkeys(jobs, True)
    assert done.read_text() != done.with_suffix(".first").read_text()
