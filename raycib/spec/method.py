"""What every method's spec has: its strength, what it reads, and what to know about it."""

from typing import Any, ClassVar, NamedTuple, Self

from raycib.spec.base import Reading, Spec
from raycib.spec.data import TaskSpec


class About(NamedTuple):
    """What a person should know before choosing a method; `raycib methods` prints it."""

    name: str
    paper: str
    strength: str
    """The field that sets the strength, what it is, and where its zero lies."""
    passes: str
    """What a step costs beyond LoRA's one forward and one backward pass."""
    needs: str
    """Data and models beyond the task's rows and the aligned model."""
    deviations: str
    """From the paper or its official code."""


class MethodBase(Spec):
    """A method's settings; each default below changes nothing about plain LoRA."""

    about: ClassVar[About]
    strength_field: ClassVar[str] = "lam"
    """The field that is the strength, where it is one as it stands."""
    derived: ClassVar[bool] = False
    """Whether its adapter is computed from its parent's, without any training."""
    starts_itself: ClassVar[bool] = False
    """Whether it chooses the adapter's start, so that it cannot go on from a parent's adapter."""
    bounds_whole_update: ClassVar[bool] = False
    """Whether it limits all that is added to the aligned model, so that nothing of it may be
    frozen."""
    stacked: ClassVar[bool] = False
    """Whether it is about an adapter trained on top of a frozen one; on its own it is LoRA."""

    @classmethod
    def at(cls, strength: float, **others: Any) -> Self:
        """The method at a strength, with other settings by name."""
        return cls.model_validate({cls.strength_field: strength, **others})

    @property
    def strength(self) -> float:
        """What a dose response has on its axis; at 0 the method is plain LoRA (see `is_plain`)."""
        return float(getattr(self, self.strength_field))

    @property
    def is_plain(self) -> bool:
        """Whether these settings come to plain LoRA."""
        return self.strength == 0

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What its loss looks up of the aligned model on the task's rows."""
        return ()

    @property
    def safety_rows(self) -> TaskSpec | None:
        """Safety data that it uses, if any."""
        return None

    @property
    def safety_readings(self) -> tuple[Reading, ...]:
        """What its loss looks up of the aligned model on the safety rows."""
        return ()

    def rows_trained(self, task_rows: int) -> int:
        """Rows of an epoch, of a task of `task_rows`."""
        return task_rows

    def idle_steps(self, rows_a_step: int) -> float:
        """Optimiser steps at the beginning of a task in which it does nothing yet."""
        return 0

    def exported_rank(self, rank: int) -> int:
        """Rank of the adapter it exports, of trained factors of rank `rank`."""
        return rank
