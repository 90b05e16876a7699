"""Doors to the machines with the accelerators: what the driver has done there, as remote calls.

What is behind a door is imported there alone, so the driver never imports torch.
"""

from typing import Any

import ray
from ray.exceptions import RayTaskError

from raycib.errors import UserError


@ray.remote(max_calls=1)  # the process ends with the task and gives its memory back
def prepare(*arguments: Any) -> None:
    """`worker.prepare` where the accelerator is."""
    from raycib.orchestration import worker

    worker.prepare(*arguments)


@ray.remote(max_calls=1)
def run_jobs(*arguments: Any) -> None:
    """`worker.run_jobs` where the accelerator is."""
    from raycib.orchestration import worker

    worker.run_jobs(*arguments)


@ray.remote
class Answering:
    """`worker.Answering` where the accelerator is."""

    def __init__(self, *arguments: Any) -> None:
        from raycib.orchestration import worker

        self._inner = worker.Answering(*arguments)

    def answer(self, *arguments: Any) -> int:
        """How many answers were new."""
        return self._inner.answer(*arguments)


def result_of(reference: Any) -> Any:
    """The result of remote work; a person's error crosses back as itself."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
