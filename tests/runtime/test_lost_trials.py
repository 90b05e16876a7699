"""A trial that Tune gives up: what it had in hand is another's."""

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from ray_head import Cluster

from raycib.config.presets import PRESETS
from raycib.runtime import train
from raycib.runtime.leases import Ended, Task
from raycib.runtime.pieces import Jobs
from raycib.runtime.study import AlignedJob
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


@pytest.fixture
def joined(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is a driver on the tests' Ray, whose workers know this file."""
    import ray
    from ray import cloudpickle

    for name, value in cluster.environ.items():
        if name.startswith("RAY"):
            monkeypatch.setenv(name, value)
    ray.init(cluster.gcs, log_to_driver=False, logging_level="ERROR")  # type: ignore[arg-type]
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ray.shutdown()


def test_what_a_trial_had_in_hand_that_is_not_started_again_is_done_by_another(
    joined: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without it the others would wait for ever. Tune forgives no loss here, the queue seven."""
    import ray.tune

    forgiving = ray.tune.FailureConfig
    monkeypatch.setattr(ray.tune, "FailureConfig", lambda **_: forgiving(max_failures=0))
    done = tmp_path / "done"
    pieces = {"killing": Jobs((cast("AlignedJob", Killing(str(done))),)), "other": Jobs(())}
    ended: list[Ended] = []
    train.run_tasks(
        [Task("killing"), Task("other")],
        pieces,
        Store(str(tmp_path / "store")),
        PRESETS["world"].execution,
        ended.append,
        lambda _: None,
        storage=str(tmp_path / "ray"),
        books=str(tmp_path / "tune"),
        trials=2,
        pins_drivers=False,
        fail_fast=False,
    )
    assert {one.name: one.well for one in ended} == {"killing": True, "other": True}
    assert done.read_text() != done.with_suffix(".first").read_text()
