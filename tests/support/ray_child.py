"""A program that has groups trained by Ray Train workers: `python ray_child.py GROUPS STORE
STRATEGY` with a file of JSON, `[AdapterGroup, ...]`."""

import json
import sys
from pathlib import Path

from raycib.config.plan import AdapterGroup
from raycib.config.presets import Execution
from raycib.runtime.cluster import connect
from raycib.runtime.pieces import tasks_of
from raycib.runtime.train import run_tasks
from raycib.store import Store


def main(groups: str, store: str, strategy: str) -> None:
    """Two workers a group; ends with an error where a stage fails."""
    execution = Execution(
        workers=2, cpus_per_worker=0.4, strategy=strategy, micro_batch_size=4,
        engine_cpus=0.1, judge_cpus=0.1,
    )  # fmt: skip
    found = [AdapterGroup.model_validate(one) for one in json.loads(Path(groups).read_text())]
    pieces = {group.name: group for group in found}
    failures: list[object] = []
    connect(execution)
    run_tasks(
        tasks_of(pieces), pieces, Store(store), execution,
        lambda one: failures.extend([one] if one.failures or one.error else []),
        lambda news: None,
        storage=f"{store}-books", books=f"{store}-tune", trials=1, pins_drivers=False,
        fail_fast=True,
    )  # fmt: skip
    if failures:
        sys.exit(str(failures))


if __name__ == "__main__":
    main(*sys.argv[1:])
