"""Parts of a sweep's result in a paragraph, made of its figures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from raycib.counting import count
from raycib.report.claims import Claim
from raycib.report.forms import percent, share
from raycib.report.statistics import mean_std
from raycib.report.text import one_line
from raycib.report.variants import ResultRow

LONGEST = 3_000
"""Characters of a headline."""


def headline(parts: Sequence[str], claims: Sequence[Claim]) -> str:
    """``parts`` and how many of the claims hold, as one paragraph."""
    told = [claim.holds for claim in claims if claim.holds is not None]
    last = f"{sum(told)} of the {len(told)} claims below that can be told hold."
    return one_line(" ".join([*parts, last]), LONGEST)


def finished(frame: pd.DataFrame) -> str:
    """How many cells finished, and over how many seeds."""
    done = frame[frame["failed"].isna()]
    return (
        f"{len(done)} of {count(len(frame), 'cell')} finished "
        f"({count(done['seed'].nunique(), 'seed')})."
    )


def erosion(lora: pd.DataFrame, aligned: Mapping[str, Any]) -> str:
    """What plain LoRA, whose finished cells are given, does to harmful responses."""
    before = aligned.get("hrr")
    start = f"from {share(before)} before fine-tuning to " if before is not None else "to "
    return f"Plain LoRA brings harmful responses {start}{over_seeds(lora, 'hrr')}"


def over_seeds(cells: pd.DataFrame, column: str) -> str:
    """The mean over seeds of a rate, as "20.6 ± 2.5 %"."""
    found = mean_std(cells[column])
    return percent(found.mean, found.std)


def with_loss(variant: ResultRow) -> str:
    """ "CIB at 5 (20.6 %, loss 0.079)"."""
    loss = variant.mean("eval_loss")
    price = f", loss {loss:z.3f}" if math.isfinite(loss) else ""
    return f"{variant.name} ({over_seeds(variant.done, 'hrr')}{price})"
