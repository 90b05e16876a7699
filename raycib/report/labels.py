"""Labels in a figure that hide neither a mark, nor a line, nor another label."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

Box = tuple[float, float, float, float]
"""left, right, low, high, as fractions of the panel."""
CHARACTER = 0.6
"""Mean width of a character of DejaVu Sans, of its size in points."""
DISTANCES = (5.0, 10.0, 16.0, 23.0)
"""Points from a mark to its label; from the second on a thin line leads there."""
SIDES = ((1, 0.6), (-1, 0.6), (1, -0.6), (-1, -0.6), (0, 1), (0, -1), (1, 0), (-1, 0))
HEIGHTS = ((0.4, -1.4), (2.0,), (3.5,), (5.0,), (7.0,))
"""Heights of a line of text from a horizontal line to its name, the nearest first."""
LEAD: Any = {"arrowstyle": "-", "lw": 0.6, "color": "#b5b5b5", "shrinkA": 0, "shrinkB": 2}


@dataclass
class Labels:
    """The labels of a panel. Make it once all else is drawn, and scales and limits are set."""

    panel: Axes
    size: float = 7
    """Of the letters, in points."""
    _taken: list[Box] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._to_axes = self.panel.transScale + self.panel.transLimits
        paths = [np.asarray(o.get_xydata()) for o in self.panel.lines if self._in_data(o)]
        for one in self.panel.collections:
            if isinstance(one, LineCollection) and self._in_data(one):
                paths += one.get_segments()
        drawn = [_between(self._to_axes.transform(np.asarray(path))) for path in paths if len(path)]
        self._across, self._up = np.concatenate(drawn).T.copy() if drawn else np.zeros((2, 0))
        box: Any = self.panel.bbox
        self._point = (
            self.panel.figure.dpi / 72 / box.width,
            self.panel.figure.dpi / 72 / box.height,
        )

    def _in_data(self, artist: Any) -> bool:
        return artist.get_transform().contains_branch(self.panel.transData)

    def take(self, text: str, left: float, high: float) -> None:
        """Say that a text begins at a place of the panel, by its upper left corner."""
        width, height = self._extent(text)
        self._taken.append((left, left + width, high - height, high))

    def beside(self, x: float, y: float, text: str, color: Any) -> bool:
        """Name a place of the data on the first side where there is room; whether there was."""
        u, v = self._to_axes.transform((x, y))
        width, height = self._extent(text)
        for left, low, far in self._sides(u, v, width, height):
            box = (left, left + width, low, low + height)
            if self._is_free(box):
                self._taken.append(box)
                self.panel.annotate(
                    text, (x, y), xytext=(left + width / 2, low + height / 2),
                    textcoords="axes fraction", fontsize=self.size, color=color, ha="center",
                    va="center", zorder=6, arrowprops=LEAD if far else None,
                )  # fmt: skip
                return True
        return False

    def along(self, value: float, text: str, color: Any) -> None:
        """Name a horizontal line, above or below it, where there is most room near an end; where
        something is in the way everywhere, from farther up, with a thin line that leads there."""
        v = float(self._to_axes.transform((self.panel.get_xlim()[0], value))[1])
        width, height = self._extent(text)
        rooms = [
            (left, left + width, v + up * height, v + (up + 1) * height)
            for near in HEIGHTS
            for left in (0.99 - width, 0.01, *np.linspace(0.1, 0.9 - width, 9))
            for up in near
            # What is below are the ticks' own labels. A line out of sight has its name beside it.
            if up == HEIGHTS[0][0] or 0 < v + up * height < 1 - height
        ]
        box = left, right, low, _ = min(rooms, key=self._hidden)
        self._taken.append(box)
        middle = (left + right) / 2
        self.panel.annotate(
            text, (middle, v), xycoords="axes fraction", xytext=(middle, low),
            textcoords="axes fraction", fontsize=self.size, color=color, ha="center", va="bottom",
            bbox={"fc": "white", "ec": "none", "pad": 0.5, "alpha": 0.7},
            arrowprops=LEAD if low > v + height else None,
        )  # fmt: skip

    def _extent(self, text: str) -> tuple[float, float]:
        across, up = self._point
        return CHARACTER * self.size * len(text) * across, 1.2 * self.size * up

    def _sides(
        self, u: float, v: float, width: float, height: float
    ) -> Iterator[tuple[float, float, bool]]:
        across, up = self._point
        for number, far in enumerate(DISTANCES):
            for right, above in SIDES:
                left = u - width / 2 + right * (far * across + width / 2)
                low = v - height / 2 + above * (far * up + height / 2)
                yield left, low, number > 0

    def _is_free(self, box: Box) -> bool:
        left, right, low, high = box
        if left < -0.01 or right > 1.06 or low < 0 or high > 1.02:
            return False
        return not self._hidden(box)

    def _hidden(self, box: Box) -> int:
        """How much lies below a box: places of marks and lines, and labels, which count most."""
        left, right, low, high = box
        up = self._up[(self._across > left) & (self._across < right)]
        marks = np.count_nonzero((up > low) & (up < high))
        return int(marks) + 1000 * sum(_meet(box, one) for one in self._taken)


def _between(path: np.ndarray) -> np.ndarray:
    """A path of places with 30 more along each of its parts."""
    shares = np.linspace(0, 1, 31)[:, None]
    return np.concatenate([path, *(a + shares * (b - a) for a, b in pairwise(path))])


def _meet(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]
