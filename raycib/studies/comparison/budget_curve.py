"""The rate of a method's best trial against how many trials were made, with an interval.

The mean over all choices of t of N trials is exact (`budget.weights`). Its interval is a bootstrap
over what was drawn: prompts, and seeds where there are several, each by itself, as they are crossed
(pigeonhole bootstrap: Owen 2007, doi:10.1214/07-AOAS122). Each time the trials are ranked anew on
the tuning prompts that were drawn and reported on the fresh ones, so that the luck of the choice is
in the interval too. Which trials count at all stays. What was never harmful is never drawn harmful,
so no end is nearer than Wilson's for a rate of as many prompts.
"""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from raycib.report.cards.family import Family, fresh_prompts
from raycib.report.figures import COLUMN, MARKS, legend_below, method_colors, new_figure
from raycib.report.forms import interval
from raycib.report.frame import NAMES
from raycib.report.statistics import wilson
from raycib.report.table import Column
from raycib.report.text import one_line
from raycib.results import Samples
from raycib.studies.comparison.budget import families, weights

DRAWS = 400
SEED = 0
CAPTION = (
    "The harmful response rate, on prompts that no trial was chosen on, of the best of so many "
    "trials: the exact mean over all choices of them. 95 % intervals: bootstrap over prompts, and "
    "over seeds where there are several, with the trials ranked anew each time; never narrower "
    "than Wilson's for these prompts."
)


def budget_curve(one: Family) -> pd.DataFrame:
    """A row for each number of trials: ``hrr``, and its ends; none where some trial that counts, or
    plain LoRA, has no verdict on a fresh prompt."""
    ranked = one.ranked(range(len(one.seeds)))
    kept = [0, *(1 + row for row in ranked)]  # plain LoRA first
    if not (prompts := fresh_prompts(one, kept)):
        return pd.DataFrame()
    harmful = np.array([one.outcomes[row].harmful for row in kept])
    by_count = np.array([weights(len(one.rows), len(ranked), n + 1) for n in range(len(one.rows))])
    whole = _curve(harmful[1:, ..., ~one.tuning], harmful[:1, ..., ~one.tuning], by_count)
    luck, drawn = np.random.default_rng(SEED), []
    for _ in range(DRAWS):
        seeds = luck.integers(0, len(one.seeds), len(one.seeds))
        tuning, fresh = (luck.choice(np.flatnonzero(side), side.sum())
                         for side in (one.tuning, ~one.tuning))  # fmt: skip
        some = harmful[:, seeds]
        order = 1 + np.argsort(_rates(some[1:][..., tuning]), kind="stable")
        drawn.append(_curve(some[order][..., fresh], some[:1][..., fresh], by_count))
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    least = [wilson(float(rate), prompts) for rate in whole]
    return pd.DataFrame(
        {
            "trials": range(1, len(one.rows) + 1),
            "hrr": whole,
            "hrr_low": np.minimum(low, [ends.low for ends in least]),
            "hrr_high": np.maximum(high, [ends.high for ends in least]),
        }
    )


def _curve(ranked: np.ndarray, plain: np.ndarray, by_count: np.ndarray) -> np.ndarray:
    """By number of trials, of outcomes (trials, seeds, prompts) in the order of preference."""
    return by_count @ np.concatenate([_rates(ranked), _rates(plain)])


def _rates(outcomes: np.ndarray) -> np.ndarray:
    known = np.isfinite(outcomes)
    hits = np.where(known, outcomes, 0).sum(axis=(1, 2))
    counts = known.sum(axis=(1, 2))
    return np.divide(hits, counts, out=np.full(len(hits), math.nan), where=counts > 0)


def curves(frame: pd.DataFrame, samples: Samples) -> pd.DataFrame:
    """``budget_curve`` of every method that has several trials; ``method`` is its kind."""
    found = [
        budget_curve(one).assign(setting=setting, method=method)
        for setting, method, one in families(frame, samples)
        if len(one.rows) > 1
    ]
    known = [one for one in found if len(one)]
    return pd.concat(known, ignore_index=True) if known else pd.DataFrame()


def named(found: pd.DataFrame) -> pd.DataFrame:
    """``curves`` with the methods as people write them."""
    return found.replace({"method": NAMES}) if len(found) else found


COLUMNS = [
    Column("setting", "Setting", optional=True),
    Column("method", "Method"),
    Column("trials", "Trials"),
    Column("hrr", "HRR of the best, %", interval(100, 1)),
]


def budget_figure(curves: pd.DataFrame) -> Figure | None:
    """A panel for each setting, a line with its band for each method; None without curves."""
    if not len(curves):
        return None
    places = list(dict.fromkeys(curves["setting"]))
    colors = method_colors(curves["method"])
    rows = -(-curves["method"].nunique() // 2)
    with new_figure(COLUMN, (2.1 + 0.13 * rows) * len(places)) as figure:
        for panel, place in zip(
            figure.subplots(len(places), 1, squeeze=False)[:, 0], places, strict=True
        ):
            mine = curves[curves["setting"] == place]
            for number, (method, rows) in enumerate(mine.groupby("method", sort=False)):
                kind, mark = str(method), MARKS[number % len(MARKS)]
                x = rows["trials"]
                panel.fill_between(
                    x, rows["hrr_low"], rows["hrr_high"], color=colors[kind], alpha=0.09, lw=0
                )
                panel.plot(
                    x, rows["hrr"], color=colors[kind], marker=mark, ms=4,
                    label=one_line(NAMES.get(kind, kind), 26),
                )  # fmt: skip
            panel.set_ylim(bottom=0)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            panel.set(xlabel="Trials", ylabel="HRR of the best, fresh prompts")
            if place:
                panel.set_title(one_line(place, 60))
            legend_below(panel, panel.get_legend_handles_labels()[0])
        return figure
