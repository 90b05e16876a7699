"""What a scorer is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from raycib.data.rows import Row

Score = Callable[[Row, str], float | None]
"""Of an answer to a row: True or False, or a number in [0, 1]; None where nothing can be said."""


@dataclass(frozen=True)
class Scorer:
    """How an answer is scored by its row."""

    name: str
    """On the command line and in tables."""
    score: Score
    fits: Callable[[Row], bool] = lambda row: True
    """Whether a row is one that it can score."""
    besides: Callable[[Sequence[Row], Sequence[str]], dict[str, Any]] | None = None
    """Further scores of a set, by name."""

    def unfit(self, rows: Sequence[Row]) -> int | None:
        """The number, from 1, of the first row that it cannot score."""
        return next((n for n, row in enumerate(rows, 1) if not self.fits(row)), None)
