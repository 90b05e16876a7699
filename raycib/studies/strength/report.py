"""The report of a study of strengths: Table 3, Figure 2 and the correlations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from raycib.report.claims import Claim
from raycib.report.correlations import COLUMNS, correlation_table
from raycib.report.figures import curves_by_variant, loss_curves
from raycib.report.forms import NOT_MEASURED, spread
from raycib.report.frame import PLAIN, SYMBOLS, strength_series, symbol_of, to_frame
from raycib.report.headline import erosion, finished, headline, over_seeds
from raycib.report.report import Drawing, Report, Section
from raycib.report.reworded import reworded
from raycib.report.scores import aligned_scores
from raycib.report.statistics import mean_std
from raycib.report.table import Table
from raycib.report.text import plain
from raycib.report.variants import named, settings
from raycib.results import Histories, Results, Samples
from raycib.studies.strength.claims import claims
from raycib.studies.strength.figures import figure2
from raycib.studies.strength.table3 import columns, table3

CAPTION = (
    "Mean ± sample standard deviation (ddof = 1) over the seeds counted in the row. HRR: harmful "
    "response rate; its 95 % interval is Wilson's at the mean, with the prompts as n, since seeds "
    "share them: it says nothing of other seeds. Incoherent: answers to harmful prompts that are "
    "neither harmful nor refusals."
)
FIGURE = (
    "Small marks: single cells, with Wilson's 95 % interval for rates; lines: means over seeds. "
    "Dashed: the model before fine-tuning. I(Z;C) is estimated on held-out prompts with random "
    "negatives; its ceiling is the logarithm of the number of candidates."
)
CORRELATIONS = (
    "r is Pearson's, ρ Spearman's. Exact p: the share of all n! pairings at least as far from "
    "zero, two-sided, given up to n = 8 (not below 1/24 = .042 at n = 4). Intervals: Fisher's, "
    "95 %; none at n = 3 or in perfect order. Pooled rows mix seeds or series, and are no evidence "
    "for a relation within one."
)


def report(results: Results, samples: Samples, histories: Histories) -> Report:
    """What strengths do, in the figures of one sweep."""
    frame, aligned = to_frame(results), aligned_scores(results)
    rows, found = table3(frame, aligned), claims(frame, aligned)
    main = Table("table3", rows, columns(rows), f"{plain(results.title)} {CAPTION}")
    related = correlation_table(frame)
    made = Report(
        results=results,
        frame=frame,
        headline=strength_headline(frame, aligned, found),
        claims=found,
        sections=[
            Section("figure", "Figure 2, for this sweep", "Figure", [
                Drawing("figure2", partial(figure2, frame, aligned), "Figure 2 for this sweep",
                        FIGURE),
            ]),
            Section("table", "Table 3, for this sweep", "Table", [main]),
            Section("correlations", "Correlations with the harmful response rate", "Correlations",
                    [Table("correlations", related, COLUMNS)], CORRELATIONS),
        ],
        main=main,
        cells=frame.sort_values(["strength", "series", "seed"]),
        curves=partial(_curves, frame, histories),
        symbol="λ",
    )  # fmt: skip
    if (symbol := symbol_of(frame)) == "λ":
        return made
    head = symbol if symbol in SYMBOLS.values() else symbol.capitalize()

    def said(text: str) -> str:
        return head if text == "λ" else text.replace("λ", symbol)

    return replace(reworded(made, said), symbol=head)


def strength_headline(
    frame: pd.DataFrame, aligned: Mapping[str, Any], found: Sequence[Claim]
) -> str:
    """The sweep's result in a paragraph: of each model and task plain LoRA, and each series at its
    ends."""
    parts = [finished(frame)]
    for place, part in settings(frame[frame["failed"].isna()]):
        lora = part[part["method"] == PLAIN]
        if len(lora):
            parts.append(f"{place}: " * bool(place) + f"{erosion(lora, aligned)}.")
        for name, cells in strength_series(part):
            positive = cells[cells["strength"] > 0]
            low, high = positive["strength"].min(), positive["strength"].max()
            first, last = (positive[positive["strength"] == end] for end in (low, high))
            weakest = f"{over_seeds(first, 'hrr')} at λ = {low:g} and " if low < high else ""
            parts.append(
                f"With {name} they are {weakest}{over_seeds(last, 'hrr')} at λ = {high:g}, where "
                f"{over_seeds(last, 'refusal_rate')} of the harmful prompts are refused, task "
                f"accuracy is {over_seeds(last, 'accuracy')} and the task loss {_loss(last)} nats"
                + (f" (plain LoRA: {_loss(lora)})." if len(lora) else ".")
            )
    return headline(parts, found)


def _curves(frame: pd.DataFrame, histories: Histories) -> Figure | None:
    """A line for each strength, or of several series for each of their rows."""
    others = frame.loc[frame["method"] != PLAIN, "series"]
    if others.nunique() > 1 or len([*settings(frame)]) > 1:
        return curves_by_variant(named(frame), histories)
    return loss_curves(frame, histories)


def _loss(cells: pd.DataFrame) -> str:
    found = mean_std(cells["eval_loss"])
    return spread(found.mean, found.std, 1, 3) or NOT_MEASURED
