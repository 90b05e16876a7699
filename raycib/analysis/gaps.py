"""Alignment and capability gaps of an arm, each with its interval, and when two of them differ."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from raycib.analysis.arms import Arm, arms
from raycib.analysis.frame import CASE1, NAMES
from raycib.analysis.statistics import mean_std

ALIGNMENT, CAPABILITY = "alignment_gap", "capability_gap"
PENALTY, BALL = "case2", "case2_ball"
NOTHING = math.nan


@dataclass(frozen=True)
class Gap:
    """A gap in nats per answer, with a 95 % interval.

    With several seeds: their mean, sample standard deviation (ddof = 1) and Student's interval.
    With one: its value, the standard error over rows and the interval of that; ``n`` counts rows.
    """

    value: float = NOTHING
    spread: float = NOTHING
    low: float = NOTHING
    high: float = NOTHING
    seeds: int = 0
    n: int = 0

    def below(self, other: "Gap") -> bool | None:
        """Whether this interval lies below the other one; None where they overlap.

        Arms share their rows, so that intervals apart are more than the data need to tell them
        apart: what stays open may still differ.
        """
        if self.high < other.low:
            return True
        return False if self.low > other.high else None


def gap(cells: pd.DataFrame, column: str) -> Gap:
    """The gap in ``column`` of cells that are equal but for their seeds."""
    over_seeds = mean_std(cells[column])
    seeds = over_seeds.n
    if not seeds:
        return Gap()
    counts = cells[f"{column}_n"].dropna()
    n = int(counts.min()) if len(counts) else 0
    if seeds == 1:
        known = cells[column].notna().to_numpy().argmax()
        se, low, high = (float(cells[column + end].iloc[known]) for end in ("_se", "_low", "_high"))
        return Gap(over_seeds.mean, se, low, high, 1, n)
    half = float(stats.t.ppf(0.975, seeds - 1)) * over_seeds.std / math.sqrt(seeds)
    return Gap(
        over_seeds.mean, over_seeds.std, over_seeds.mean - half, over_seeds.mean + half, seeds, n
    )  # fmt: skip


def places(frame: pd.DataFrame) -> Iterator[tuple[str, str, list[Arm]]]:
    """The arms of each task (and model): what the place is called, its task, and its arms, plain
    LoRA first. An arm's series does not repeat the place."""
    several = frame["model"].nunique() > 1
    named = frame.assign(series=frame["label"])
    for (model, task), part in named.groupby(["model", "task"], sort=False, dropna=False):
        yield f"{model}, {task}" if several else str(task), str(task), arms(part)


def lines(found: Iterable[Arm], *methods: str) -> dict[str, list[Arm]]:
    """The arms of ``methods`` that have finished cells, by series, each at rising strength."""
    made: dict[str, list[Arm]] = {}
    for arm in found:
        if arm.method in methods and len(arm.done):
            made.setdefault(arm.series, []).append(arm)
    return made


def proxy_name(proxy: object, label: str) -> str:
    """The name of a Case I cell's safety data, from its parameter or else from its label."""
    return proxy if isinstance(proxy, str) else label.removeprefix(f"{NAMES[CASE1]}, ")


def proxy_of(arm: Arm) -> str:
    """The name of the safety data of a Case I arm."""
    cells = arm.done if len(arm.done) else arm.failed
    return proxy_name(cells["proxy"].iloc[0], arm.series)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of the points that none beats: none has both coordinates at most as large and one
    smaller; in order of the first."""
    kept: list[tuple[float, float]] = []
    for x, y in sorted(set(points)):
        if not kept or y < kept[-1][1]:
            kept.append((x, y))
    return kept


def all_told(told: Iterable[bool | None]) -> bool | None:
    """False where one is, else None where one is open (or there is none), else True."""
    found = list(told)
    if False in found:
        return False
    return None if None in found or not found else True
