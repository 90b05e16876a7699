"""What a continual study adds to the results of a sweep."""

from collections.abc import Sequence

from raycib.results import Cell, Part, Results, Scores


class Stage(Part):
    """A cell after one of its tasks."""

    key: str
    task: str
    """The one that it trained."""
    scores: Scores | None
    """``accuracy`` is on that task, ``accuracies`` on every one."""
    failed: str | None
    """Why it has no scores."""


class ContinualScores(Scores):
    """After the last stage; fractions, see ``continual_scores``."""

    bt: float | None
    bt_all: float | None
    bwt: float | None
    bwt_all: float | None
    forward_transfer: float | None
    forgetting: float | None
    stability: float | None
    stability_first: float | None


class ContinualCell(Cell):
    """A method at a strength through one order with one seed."""

    order: Sequence[str]
    """The tasks as trained."""
    stages: Sequence[Stage]


class ContinualResults(Results):
    """Of several tasks, one after another."""

    cells: Sequence[ContinualCell]  # pyright: ignore[reportIncompatibleVariableOverride]
    tasks: Sequence[str]
    """As they are given, the paper's order."""
