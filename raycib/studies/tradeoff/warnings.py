"""What a reader must know before believing gaps and bounds, in plain words."""

import pandas as pd

from raycib.counting import count
from raycib.report.frame import PLAIN
from raycib.studies.tradeoff.gap import ALIGNMENT, BALL, CAPABILITY, CASE1, PENALTY
from raycib.studies.tradeoff.results import TradeoffResults
from raycib.studies.tradeoff.theory import Theory

BEYOND = 1.001
"""Of its radius: from this distance on, a ball did not hold its weights."""


def warnings(results: TradeoffResults, frame: pd.DataFrame) -> list[str]:
    """Warnings that gaps, bounds and their terms call for."""
    done = frame[frame["failed"].isna()]
    found = []
    for column, name, why in (
        (ALIGNMENT, "alignment", "the aligned model is not the best one on these rows"),
        (CAPABILITY, "capability", "plain LoRA did not end at the lowest loss on these rows"),
    ):
        negative = done[done[f"{column}_high"] < 0]
        if len(negative):
            lowest = negative[column].min()
            found.append(
                f"In {count(len(negative), 'cell')} the {name} gap is negative, interval and all "
                f"(to {lowest:z.3f} nats): {why}, so gaps against it are too small by as much."
            )
    missing = done[done[CAPABILITY].isna() & (done["method"] != PLAIN)]
    if len(missing):
        found.append(
            f"{count(len(missing), 'cell has', 'cells have')} no capability gap, for want of a "
            "finished plain LoRA of their task and seed or of a measurement."
        )
    balls = done[done["method"] == BALL]
    outside = balls[balls["distance"] > BEYOND * balls["strength"]]
    if len(outside):
        worst = (outside["distance"] / outside["strength"]).max()
        found.append(
            f"{count(len(outside), 'cell lies', 'cells lie')} outside of Case II's ball, up to "
            f"{worst:z.2f} times its radius: the projection did not do its work there."
        )
    if done["method"].isin([CASE1, PENALTY, BALL]).any():
        found.append(
            "Several comparisons of gaps are not corrected for being several: of equal ones 1 in "
            "20 is told apart, and one that goes the wrong way fails a claim."
        )
    if results.theory is None:
        found.append("The theorems' terms were not measured: no bounds are shown.")
        return found
    return found + _of_terms(results.theory, done)


def _of_terms(theory: Theory, done: pd.DataFrame) -> list[str]:
    found = [
        "The theorems speak of exact minimisers of their objectives; here both objectives were "
        "trained for as many steps as every other row. A bound that fails may fail for that."
    ]
    if (done["method"] == CASE1).any():
        found.append(
            "C_p of Theorem 1 is the largest -log p seen on the rows measured, not over all "
            "answers and weights: a bound with the true one would be looser."
        )
    estimated = [
        *(proxy.name for proxy in theory.proxies if proxy.how != "exact"),
        *(f"{shared.proxy} with {shared.task}" for shared in theory.overlaps
          if shared.how != "exact"),
    ]  # fmt: skip
    if estimated:
        found.append(
            f"Estimated, not exact, are data terms of {', '.join(dict.fromkeys(estimated))}."
        )
    if theory.slopes or theory.smoothness:
        found.append(
            "Slopes and curvatures of the loss are the largest found by search, so at most the "
            "true ones: the bounds of Theorems 3 and 4 may be smaller than the theorems' own."
        )
    return found
