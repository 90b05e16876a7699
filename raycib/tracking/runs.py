"""Where MLflow's runs are kept, as the view of a sweep asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from raycib.tracking.shown import Point, Shown

MetricRows = Sequence[Point]


@dataclass(frozen=True)
class Known:
    """A run that MLflow has."""

    run_id: str
    start: int
    """In milliseconds since 1970."""
    content: str
    """Of what it holds (`Shown.content`); "" where it was never over."""
    status: str
    """As MLflow has it."""
    place: str
    """Of its artifacts."""


class Runs(Protocol):
    """The runs of an experiment."""

    def known(self, sweep: str) -> dict[tuple[str, str], Known]:
        """The sweep's runs, by key and name."""
        ...

    def write(self, cells: Sequence[tuple[Shown, Known | None]], parent: str | None) -> list[Known]:
        """Runs that are new, or in the place of what they held; as they are now."""
        ...

    def add_points(self, points: Sequence[tuple[Known, MetricRows]]) -> None:
        """New points of runs' curves."""
        ...

    def last_steps(self, runs: Sequence[Known]) -> dict[str, int]:
        """The last step of each run's curves that is surely there, by its id."""
        ...

    def mark(self, runs: Sequence[Known], status: str, ended: int | None) -> None:
        """Runs that go on, or were interrupted."""
        ...
