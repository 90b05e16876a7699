"""Word that Ray's memory monitor has ended a worker, so that its group comes back in parts.

The system's own kills are counted by the workers instead: see `ended_for_memory`.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from ray import cloudpickle
from ray.air.execution._internal import RayActorManager  # there is no public way
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import UserCallback
from ray.tune.experiment import Trial


class NoMemory(RayActorError):
    """The end of an actor that Ray's memory monitor has ended."""


def ends_a_trial() -> AbstractContextManager[Any]:
    """In the block Tune takes such an end for that of one trial. Tune of Ray 2.60 does not know
    it, for it is no `RayActorError`, and ends all of them."""
    failed = RayActorManager._actor_task_failed

    def known(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = NoMemory(error_msg=str(exception))
        failed(self, tracked_actor_task, exception)

    return patch.object(RayActorManager, "_actor_task_failed", known)


def was_without_memory(trial: Trial) -> bool:
    """Whether that is what it ended of last. Tune has no call for an error that it has just met:
    its own looks where files are copied to later."""
    if not trial.pickled_error_file:
        return False
    return isinstance(cloudpickle.loads(Path(trial.pickled_error_file).read_bytes()), NoMemory)


class TellsLeases(UserCallback):
    """Of a group of Ray Train's workers: whether one of them was ended so."""

    def __init__(self, leases: Any, holder: str) -> None:
        self._leases, self._holder = leases, holder

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """The queue hears of it before a new group of workers joins it."""
        causes = (getattr(e, "health_check_failure", e) for e in worker_exceptions.values())
        if any(isinstance(cause, OutOfMemoryError) for cause in causes):
            ray.get(self._leases.starve.remote(self._holder))
