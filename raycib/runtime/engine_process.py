"""Where an engine of the base model is: a process of the sweep's own, or on a shared cluster one
for all sweeps that want the same.

A shared one lives by itself, under a name that says what it holds. Who uses it holds that name;
the last one out ends it, and one that nobody holds for some minutes ends by itself.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayTaskError

from raycib.config import ModelSpec, digest
from raycib.config.presets import Execution
from raycib.errors import UserError
from raycib.runtime.engine_pool import Ended
from raycib.runtime.engines import JUDGING, Engines
from raycib.runtime.holds import (
    NAMESPACE,
    alone,
    held_by_anyone,
    held_by_others,
    hold,
    names,
    patience_s,
    wait_until_forgotten,
)
from raycib.store import StoreError

PREFIX = "raycib-engine-"
RESTARTS = 3
"""Of a process with engines, which is then asked again."""
LOOK_S = 1.0
"""Between two looks whether anybody still waits."""


class SharedEngines(Engines):
    """Engines that end by themselves once nobody holds their name."""

    def __init__(self, name: str, patience: float, *base: Any) -> None:
        super().__init__(*base)
        threading.Thread(target=self._leave, args=(name, patience), daemon=True).start()

    def _leave(self, name: str, patience: float) -> None:
        wait_until_forgotten(name, patience)
        ray.kill(ray.get_runtime_context().current_actor)


class EngineProcess:
    """One sweep's side of a replica: it is started, or found, at once."""

    def __init__(
        self,
        model: ModelSpec,
        rank: int,
        length: int,
        targets: Sequence[tuple[str, ...]],
        execution: Execution,
        shared: bool,
        number: int = 0,
    ) -> None:
        """`rank` is the largest that any adapter has, `length` in tokens, `targets` are adapters'
        sets of modules; `shared` says whether other sweeps of the cluster use the process as well,
        and `number` which of several it is."""
        invariant = execution.batch_invariant
        if model.quantization is None:
            # vLLM has room for all that any of them has.
            targets = [tuple(sorted({name for chosen in targets for name in chosen}))]
        base = model, rank, length, execution.engine_gpus, invariant, targets
        named = PREFIX + digest([model.key, *base[1:], execution.engine_cpus, number])[:12]
        self._name = named if shared else None
        self._lease: Any = None
        self._ended = threading.Event()
        self.is_new = True
        """Whether it had to be started; others' are used as they are."""
        options: dict[str, Any] = {
            "num_cpus": execution.engine_cpus,
            "num_gpus": execution.engine_gpus,
            "max_restarts": RESTARTS,
            "max_task_retries": RESTARTS,
            "concurrency_groups": {JUDGING: 1},
        }
        process: Any = ray.remote(**options)
        if self._name is None:
            self.actor: Any = process(Engines).remote(*base)
        else:
            place = {"name": named, "namespace": NAMESPACE, "lifetime": "detached"}
            start = partial(process(SharedEngines).options(**place).remote, named, patience_s())
            self.actor = self._joined(named, partial(start, *base))

    def _joined(self, name: str, start: Callable[[], Any]) -> Any:
        self._lease = hold(name)
        with alone(name):
            _drop_orphans()
            with suppress(ValueError):  # there is none
                found = ray.get_actor(name, namespace=NAMESPACE)
                self.is_new = False
                return found
            return start()

    def do(self, what: str, *given: Any) -> Any:
        """What a method of `Engines` returns, once it does. Raises one of `GONE` where the process
        was lost, and `Ended` once it was let go of."""
        reference = getattr(self.actor, what).remote(*given)
        while not ray.wait([reference], timeout=LOOK_S)[0]:
            if self._ended.is_set():
                raise Ended
        try:
            return result_of(reference)
        except Exception:
            if self._ended.is_set():
                raise Ended from None
            raise

    def end(self) -> None:
        """Let go of it; the last one out ends it."""
        self._ended.set()
        if self._name is None:
            ray.kill(self.actor)
            return
        ray.kill(self._lease)
        with alone(self._name):
            if not held_by_others(self._name):
                _end(self._name)


def result_of(reference: Any) -> Any:
    """What was sent somewhere, once it is done; a person's error crosses back as itself."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, UserError | StoreError):
            raise error.cause from None
        raise


def _drop_orphans() -> None:
    """End engines that nobody holds: killed drivers', which may have the GPU that is wanted."""
    for name in names():
        engine, _, holder = name.partition(" for ")
        if engine.startswith(PREFIX) and not holder and not held_by_anyone(engine):
            _end(engine)


def _end(name: str) -> None:
    """An engine is gone, and its name is free, when this returns."""
    with suppress(ValueError):
        ray.kill(ray.get_actor(name, namespace=NAMESPACE))
        for _ in range(300):  # a moment, as a rule
            if name not in names():
                return
            time.sleep(0.1)
