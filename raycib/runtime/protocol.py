"""What a sweep asks of the place where its phases are done: a Ray cluster, or this process."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from raycib.config.plan import Plan
from raycib.evals.alone import Pick
from raycib.evals.verdicts import Pair
from raycib.runtime.leases import Ended, Task
from raycib.runtime.named_judges import NamedJudge
from raycib.runtime.pieces import Piece
from raycib.runtime.progress import ProgressView

Pending = Callable[[], Any]
"""Work that has begun; call it to have it done. It may be called again."""


class Runtime(Protocol):
    """Where a sweep's phases are done. What is done is in the store; `str` says where it is."""

    groups_at_once: int
    overlaps: bool
    """Whether engine and judge work while adapters are still trained."""
    engine_starts: int
    lost: tuple[type[Exception], ...]
    """What is raised where a part of the place itself is gone."""

    def expect(self, plan: Plan) -> None:
        """Hear what is to be done, before any of it."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether engine and judge can load while all begins, and be in nobody's way."""
        ...

    @property
    def engines(self) -> int:
        """How many answer side by side."""
        ...

    def view(self, folder: Path, steps: int) -> ProgressView:
        """Shows a person how far `steps` of training are."""
        ...

    def train(
        self, tasks: Sequence[Task], pieces: Mapping[str, Piece], ended: Callable[[Ended], None]
    ) -> None:
        """Do what each of `tasks` is, by name, in an order that they allow; `ended` hears of each
        as it is over."""
        ...

    def start_engine(self) -> None:
        """Have the engine of the base model ready; safe to call twice."""
        ...

    def ask(self, model_ids: Sequence[str]) -> Pending:
        """All prompts to some models, whose answers go to the store."""
        ...

    def ask_alone(self, picks: Sequence[Pick]) -> Pending:
        """Some answers again, each alone; they go to the store."""
        ...

    def stop_engine(self) -> None:
        """Free what it holds; safe to call twice."""
        ...

    def start_judge(self, judge: NamedJudge) -> None:
        """Have a judge ready, and no other; safe to call twice."""
        ...

    def ask_judge(self, judge: NamedJudge, pairs: Sequence[Pair]) -> int:
        """Have it read what it has not; how many it read. Raises `JudgeUnavailable`."""
        ...

    def close(self) -> None:
        """Stop everything."""
        ...
