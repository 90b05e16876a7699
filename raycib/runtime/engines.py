"""The engines of a sweep in one process: the base model's, which answers, and a guard's. Both are
vLLM's, but for a base in 4 bits.

Imported by the driver too: what is heavy is imported where an engine starts.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

import ray

from raycib.config import EvalSpec, JudgeSpec, ModelSpec
from raycib.errors import UserError
from raycib.evals.alone import Pick
from raycib.evals.engine import Engine
from raycib.evals.judges import GuardJudge, Verdict
from raycib.evals.verdicts import Pair
from raycib.importing import no_collections
from raycib.runtime.judge import guard_with_vllm
from raycib.store import Store, StoreError

if TYPE_CHECKING:
    from raycib.runtime.answering import Answering

JUDGING = "judging"
"""Concurrency group: a judge does not wait for all answers that were asked for before."""


class Engines:
    """Each is loaded when it is first wanted, and stays. One works at a time: vLLM keeps what it
    computes in globals of its process."""

    def __init__(
        self,
        model: ModelSpec,
        rank: int,
        max_model_len: int,
        gpus: float = 0.0,
        batch_invariant: bool = False,
        targets: Sequence[tuple[str, ...]] = (),
    ) -> None:
        """All of it is what `answering.with_its_engine` wants."""
        self._base = model, rank, max_model_len, gpus, batch_invariant, targets
        self._working, self._broken = Lock(), False
        self._engine: tuple[Any, Engine] | None = None
        self._answering: dict[str, Answering] = {}
        """By the store that answers go to."""
        self._guard: tuple[str, GuardJudge] | None = None

    def load(self) -> None:
        """Have the base model's engine ready."""
        with self._alone():
            self._loaded()

    # What a lost process had is asked of another (`engine_pool`), not of it again.
    @ray.method(max_task_retries=0)
    def answer(self, store: Store, evals: Mapping[str, Sequence[EvalSpec]]) -> int:
        """How many answers to a store were new (`answering.Answering`)."""
        with self._alone():
            return self._answers(store).answer(evals)

    @ray.method(max_task_retries=0)
    def ask_alone(self, store: Store, picks: Sequence[Pick]) -> None:
        """Some answers again, each alone."""
        with self._alone():
            self._answers(store).ask_alone(picks)

    @ray.method(concurrency_group=JUDGING)
    def load_guard(self, spec: JudgeSpec) -> None:
        """Have a guard's engine ready, and no other guard's."""
        with self._alone():
            self._judges(spec)

    @ray.method(concurrency_group=JUDGING)
    def judge(self, spec: JudgeSpec, pairs: Sequence[Pair]) -> list[Verdict]:
        """A guard's verdict on each pair."""
        with self._alone():
            return self._judges(spec).judge(pairs)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """An engine that raised keeps what it had begun, and whoever asks it next waits for that
        without end. So this process ends then, and Ray starts another."""
        with self._working:
            if self._broken:
                os._exit(1)
            try:
                yield
            except (UserError, StoreError):
                raise
            except Exception:
                self._broken = True
                raise

    def _loaded(self) -> "tuple[Any, Engine]":
        if self._engine is None:
            with no_collections():
                from raycib.runtime.answering import with_its_engine
            self._engine = with_its_engine(*self._base)
        return self._engine

    def _answers(self, store: Store) -> "Answering":
        from raycib.runtime.answering import Answering

        if store.root not in self._answering:
            self._answering[store.root] = Answering(store, self._base[0], *self._loaded())
        return self._answering[store.root]

    def _judges(self, spec: JudgeSpec) -> GuardJudge:
        if self._guard is None or self._guard[0] != spec.key:
            self._guard = None
            self._guard = spec.key, guard_with_vllm(spec)
        return self._guard[1]
