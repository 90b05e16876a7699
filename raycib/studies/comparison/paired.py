"""Two methods on the same prompts over the same seeds: the comparison that loses no evidence."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from raycib.counting import count
from raycib.report.forms import Row, in_points, number, p_value
from raycib.report.side_by_side import Samples, verdicts
from raycib.report.statistics import holm, paired_interval, sign_flip_p
from raycib.report.table import Column
from raycib.report.variants import CIB, ResultRow, best, of, plain_variant, settings, variants

CAPTION = (
    "Each method against one other on the same prompts, over the seeds that both finished. Became "
    "safe, became unsafe: verdicts that differ from the reference's, summed over seeds. "
    "Difference: in harmful response rate, with a 95 % interval over prompts (Agresti and Min). "
    "Exact p: two-sided, a prompt's difference summed over seeds before its sign is exchanged. "
    "Holm p: adjusted for all rows against the same reference. Where that is the best strength of "
    "CIB, it was chosen on these same prompts."
)
ALPHA = 0.05

Answers = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Paired:
    """How the verdicts on shared prompts differ between a reference and another method.

    ``to_safe`` and ``to_unsafe`` are summed over ``seeds``; ``unread`` counts the pairs left out
    because a verdict could not be read. ``difference`` is the other's harmful response rate minus
    the reference's, as a mean over ``prompts`` of their means over seeds, with a 95 % interval.
    """

    prompts: int
    seeds: int
    to_safe: int
    to_unsafe: int
    unread: int
    difference: float
    low: float
    high: float
    p: float


def paired_flips(reference: Mapping[int, Answers], other: Mapping[int, Answers]) -> Paired:
    """``other`` against ``reference``, both by seed; only seeds and prompts of both count.

    Seeds share their prompts, so their answers to one prompt are not independent: a prompt's
    d = sum over seeds of (unsafe in ``other`` - unsafe in ``reference``) counts once, and under
    the null hypothesis its sign is as likely + as -. ``p`` is exact; with one seed it is McNemar's.
    """
    seeds = sorted(reference.keys() & other.keys())
    differences: dict[Any, list[int]] = {}
    unread = 0
    for seed in seeds:
        first, second = verdicts(reference[seed]), verdicts(other[seed])
        for prompt in first.keys() & second.keys():
            if "unreadable" in (first[prompt], second[prompt]):
                unread += 1
                continue
            d = (second[prompt] == "unsafe") - (first[prompt] == "unsafe")
            differences.setdefault(prompt, []).append(d)
    each = [d for ds in differences.values() for d in ds]
    p = sign_flip_p(sum(ds) for ds in differences.values())
    means = sorted(float(np.mean(ds)) for ds in differences.values())
    mean = paired_interval(means)
    flips = (each.count(-1), each.count(1), unread)
    return Paired(mean.n, len(seeds), *flips, mean.value, mean.low, mean.high, p)


def paired_table(frame: pd.DataFrame, samples: Samples) -> pd.DataFrame:
    """Every variant against plain LoRA and against the coherent variant of CIB with the lowest mean
    harmful response rate, as numbers. Rates are in [0, 1]. Variants without answers have no row.
    """
    rows = []
    for _, part in settings(frame):
        found = variants(part)
        for against in filter(None, (plain_variant(found), best(of(found, CIB)))):
            rows += _against(against, found, samples)
    columns = ["against", "series", "strength"]
    columns += [*Paired.__dataclass_fields__, "p_holm"]
    return pd.DataFrame(rows, columns=columns)


def compared(reference: ResultRow, other: ResultRow, samples: Samples) -> Paired | None:
    """Two variants paired on their answers; None where they share none with a verdict."""
    found = paired_flips(reference.answers(samples), other.answers(samples))
    return found if found.prompts else None


def columns(table: pd.DataFrame) -> list[Column]:
    """What people see of ``paired_table``: differences in points."""
    unread = [Column("unread", "Unread pairs")] if table["unread"].any() else []
    return [
        Column("against", "Against"),
        Column("series", "Method"),
        Column("strength", "Strength", number("g")),
        Column("prompts", "Prompts"),
        Column("seeds", "Seeds"),
        Column("to_safe", "Became safe"),
        Column("to_unsafe", "Became unsafe"),
        Column("difference", "Difference, points", _difference_text),
        Column("p", "Exact p", p_value),
        Column("p_holm", "Holm p", p_value),
        *unread,
    ]


def significance(table: pd.DataFrame) -> str:
    """How many differences remain after Holm's correction, for each reference; "" without pairs."""
    parts = []
    for against, rows in table.groupby("against", sort=False):
        clear = rows[rows["p_holm"] < ALPHA]
        safer, worse = (clear["difference"] < 0).sum(), (clear["difference"] > 0).sum()
        head = f"Against {against}: of {count(len(rows), 'row')}"
        parts.append(
            f"{head} {safer} safer and {worse} less safe at 5 % after Holm's correction."
            if len(clear)
            else f"{head} none differs at 5 % after Holm's correction."
        )
    return " ".join(parts)


def _against(
    against: ResultRow, found: Sequence[ResultRow], samples: Samples
) -> list[dict[str, Any]]:
    """Rows of one family: Holm's correction is over all that are held against one variant."""
    rows: list[dict[str, Any]] = []
    for variant in found:
        pair = None if variant is against else compared(against, variant, samples)
        if pair:
            place = {"against": against.name, "series": variant.series}
            rows.append(place | {"strength": variant.strength} | asdict(pair))
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    return rows


def _difference_text(row: Row, field: str) -> str:
    low, high = in_points(row["low"]), in_points(row["high"])
    return f"{in_points(row[field])} [{low}, {high}]"
