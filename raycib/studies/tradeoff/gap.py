"""Alignment and capability gaps of a variant, each with its interval, and when two of them
differ."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pandas as pd

from raycib.metrics import student
from raycib.report.frame import NAMES, to_frame
from raycib.report.statistics import Interval, mean_std, t_interval, tolerance
from raycib.report.text import plain
from raycib.report.variants import ResultRow, by_series, variants
from raycib.results import Results

ALIGNMENT, CAPABILITY = "alignment_gap", "capability_gap"
CASE1, PENALTY, BALL = "case1", "case2", "case2_ball"
GAPS = (
    "alignment_gap", "capability_gap", "alignment_gap_exact", "capability_gap_exact",
    "alignment_nll", "capability_nll",
)  # fmt: skip
TAX = ("tax", "tax_bound", "information_zy", "label_entropy", "tax_n")
GAP_COLUMNS = (
    *(gap + end for gap in GAPS for end in ("", "_low", "_high", "_se", "_n")), "max_nll", *TAX,
)  # fmt: skip


@dataclass(frozen=True)
class Gap:
    """A gap in nats per answer, with a 95 % interval.

    With several seeds: their mean, sample standard deviation (ddof = 1) and Student's interval.
    With one: its value, the standard error over rows and the interval of that; ``n`` counts rows.
    """

    value: float = math.nan
    spread: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0


def gap_frame(results: Results) -> pd.DataFrame:
    """The cells of a sweep with ``GAP_COLUMNS`` (nats per answer) and ``proxy``, the name of Case
    I's safety data."""
    frame = to_frame(results, GAP_COLUMNS)
    names = [cell.parameters.get("safety") for cell in results.cells]
    frame["proxy"] = [plain(name) if isinstance(name, str) else None for name in names]
    frame.loc[frame["method"] != CASE1, "proxy"] = None
    return frame


def gap(cells: pd.DataFrame, column: str) -> Gap:
    """The gap in ``column`` of cells that are equal but for their seeds."""
    over_seeds = mean_std(cells[column])
    if not over_seeds.n:
        return Gap()
    counts = cells[f"{column}_n"].dropna()
    n = int(counts.min()) if len(counts) else 0
    if over_seeds.n == 1:
        known = cells[column].notna().to_numpy().argmax()
        se, low, high = (float(cells[column + end].iloc[known]) for end in ("_se", "_low", "_high"))
        return Gap(over_seeds.mean, se, low, high, n)
    ends = t_interval(cells[column])
    return Gap(over_seeds.mean, over_seeds.std, ends.low, ends.high, n)


def smaller(one: ResultRow, other: ResultRow, column: str) -> bool | None:
    """Whether the gap in ``column`` of ``one`` is below that of ``other``: whether the 95 %
    interval of their difference lies below 0 (False: above; None: it contains 0, or nothing is
    known).

    With several seeds that both have, Student's interval of the differences by seed. With one, and
    where all of several differ by the same, which says nothing of other seeds, from the standard
    errors over rows: as if the variants did not share theirs, which leaves more open, with the
    degrees of freedom of the fewest rows, which Welch's are never below.
    """
    used = ["seed", *(f"{column}{end}" for end in ("", "_se", "_n"))]  # of a hundred columns
    a, b = (variant.done[used].set_index("seed") for variant in (one, other))
    differences = (a[column] - b[column]).dropna()
    scale = float(max(a[column].abs().max(), b[column].abs().max()))
    if not len(differences):
        return None
    found = t_interval(differences, scale)
    if found.n < 2 or found.low == found.high:
        shared = [cells.loc[differences.index] for cells in (a, b)]
        errors = (float(cells[f"{column}_se"].mean()) for cells in shared)
        fewest = min(float(cells[f"{column}_n"].min()) for cells in shared)
        half = student(fewest - 1) * math.hypot(*errors)
        found = Interval(found.value, found.value - half, found.value + half, found.n)
    if found.high < -tolerance((), scale):
        return True
    return False if found.low > tolerance((), scale) else None


Place = tuple[str, str, list[ResultRow]]
"""What a task (and model) is called, its task, and its variants."""


def places(frame: pd.DataFrame) -> Iterator[Place]:
    """The variants of each task (and model): what the place is called, its task, and its variants,
    plain LoRA first. A variant's series does not repeat the place."""
    several = frame["model"].nunique() > 1
    named = frame.assign(series=frame["label"])
    for (model, task), part in named.groupby(["model", "task"], sort=False, dropna=False):
        yield f"{model}, {task}" if several else str(task), str(task), variants(part)


def lines(found: Iterable[ResultRow], *methods: str) -> dict[str, list[ResultRow]]:
    """The variants of ``methods`` that have finished cells, by series, each at rising strength."""
    return by_series(v for v in found if v.method in methods and len(v.done))


def proxy_name(proxy: object, label: str) -> str:
    """The name of a Case I cell's safety data, from its parameter or else from its label."""
    return proxy if isinstance(proxy, str) else label.removeprefix(f"{NAMES[CASE1]}, ")


def proxy_of(variant: ResultRow) -> str:
    """The name of the safety data of a Case I variant."""
    cells = variant.done if len(variant.done) else variant.failed
    return proxy_name(cells["proxy"].iloc[0], variant.series)
