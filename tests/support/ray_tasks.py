"""Tasks on a Ray of the tests', given out by this process as a sweep's driver does it."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import cast

from ray_head import Cluster

from raycib.config.presets import PRESETS
from raycib.runtime import train
from raycib.runtime.leases import Ended, Task
from raycib.runtime.pieces import Jobs
from raycib.runtime.study import AlignedJob
from raycib.store import Store


@contextmanager
def joined(cluster: Cluster, module: ModuleType) -> Iterator[None]:
    """This process is a driver, whose workers know a `module` of tests."""
    import ray
    from ray import cloudpickle

    before = dict(os.environ)
    os.environ.update({k: v for k, v in cluster.environ.items() if k.startswith("RAY")})
    ray.init(cluster.gcs, log_to_driver=False, logging_level="ERROR")  # type: ignore[arg-type]
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)


def run(
    jobs: Mapping[str, tuple[object, ...]],
    ended: Callable[[Ended], None],
    folder: Path,
    trials: int,
    workers: int = 1,
    last: str = "",
) -> None:
    """Have jobs done, each in a task of its name; the `last` one begins after all others."""
    train.run_tasks(
        [
            Task(name, after=frozenset(jobs.keys() - {last} if name == last else ()))
            for name in jobs
        ],
        ended,
        fail_fast=False,
        pieces={name: Jobs(cast("tuple[AlignedJob, ...]", some)) for name, some in jobs.items()},
        store=Store(str(folder / "store")),
        execution=PRESETS["world"].execution.model_copy(update={"workers": workers}),
        told=lambda _news, _waits: None,
        storage=str(folder / "ray"),
        books=str(folder / "tune"),
        trials=trials,
        pins_drivers=False,
    )
