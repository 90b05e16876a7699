"""The report of a comparison, and of an ablation: Table 1, matched cost, pairs, the price."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from raycib.report.claims import Claim
from raycib.report.figures import curves_by_variant
from raycib.report.frame import to_frame
from raycib.report.headline import erosion, finished, headline, with_loss
from raycib.report.report import Drawing, Report, Section
from raycib.report.scores import aligned_scores
from raycib.report.statistics import less
from raycib.report.table import Column, Table
from raycib.report.text import plain
from raycib.report.variants import (
    CIB,
    ResultRow,
    best,
    by_series,
    named,
    of,
    plain_variant,
    settings,
    variants,
)
from raycib.results import Histories, Results, Samples
from raycib.studies.comparison import budget, budget_curve, matched_cost, paired, table1
from raycib.studies.comparison.bars import bars
from raycib.studies.comparison.budget_curve import budget_figure
from raycib.studies.comparison.claims import ablation_claims, comparison_claims
from raycib.studies.comparison.price_figure import price_figure
from raycib.studies.comparison.warnings import warnings

MOST_ROWS = 8
"""Rows of an ablation that its headline names one by one."""
PRICE = (
    "Hollow marks: means over seeds, joined through a method's strengths in order, the last one "
    "named in (a); small marks: seeds. Grey steps: no method whose answers to harmful prompts are "
    "at most 10 % incoherent has both a lower loss and a lower harmful response rate. Dotted: "
    "plain LoRA's loss; dashed: before fine-tuning."
)
BARS = (
    "Bars: means over seeds (dots); whiskers: Wilson's 95 % interval at the mean, with the prompts "
    "as n."
)


def report(results: Results, samples: Samples, histories: Histories) -> Report:
    """Methods held against each other, in the figures of one sweep."""
    made = _report(results, samples, histories, comparison_claims)
    return replace(made, warnings=warnings(made.frame))


def ablation(results: Results, samples: Samples, histories: Histories) -> Report:
    """What a part of one method does, in the figures of one sweep: Figure 3's bars as well."""
    made = _report(results, samples, histories, ablation_claims, MOST_ROWS)
    draw = partial(bars, made.frame, aligned_scores(results).get("hrr"))
    drawn = Drawing("bars", draw, "Harmful response rates by row", BARS)
    first, *others = made.sections
    return replace(made, sections=[replace(first, parts=[drawn, *first.parts]), *others])


def comparison_headline(
    frame: pd.DataFrame, aligned: Mapping[str, Any], found: Sequence[Claim], most_rows: int = 0
) -> str:
    """Plain LoRA, the safest methods, each at its coherent strength of lowest HRR, and CIB's
    place; of at most ``most_rows`` rows each one."""
    parts = [finished(frame)]
    for name, part in settings(frame):
        every = [variant for variant in variants(part) if math.isfinite(variant.mean("hrr"))]
        head = f"{name}: " if name else ""
        if lora := plain_variant(every):
            loss = lora.mean("eval_loss")
            price = f" at a task loss of {loss:z.3f} nats" if math.isfinite(loss) else ""
            parts.append(f"{head}{erosion(lora.done, aligned)}{price}.")
        if len(every) <= most_rows:
            others = [variant for variant in every if variant is not lora]
            parts.append(f"{head}The other rows: {_listed(others)}." if others else "")
        else:
            parts += [head + text for text in _lowest(every)]
    return headline(parts, found)


def _report(
    results: Results, samples: Samples, histories: Histories, claims: Any, most_rows: int = 0
) -> Report:
    frame, aligned = to_frame(results), aligned_scores(results)
    found = claims(frame, aligned, samples)
    rows, cells = table1.table1(frame, aligned), named(frame)
    pairs = paired.paired_table(frame, samples)
    main = Table(
        "table1", rows, table1.columns(rows), f"{plain(results.title)} {table1.CAPTION}",
        key=("series", "strength"),
    )  # fmt: skip
    price = Drawing("tradeoff", partial(price_figure, frame, aligned.get("hrr")),
                    "Harmful answers against their price", PRICE)  # fmt: skip
    return Report(
        results=results,
        frame=frame,
        headline=comparison_headline(frame, aligned, found, most_rows),
        claims=found,
        sections=[
            Section("figure", "Safety against its price", "Figure", [price]),
            Section("table", "Table 1, for this sweep", "Table", [main]),
            Section("cost", "Harmful responses at equal task loss", "Equal loss", [
                _cost(frame),
            ]),
            Section("budget", "What tuning buys", "Tuning", _tuned(frame, samples)),
            Section("pairs", "The same prompts, paired", "Pairs", [
                Table("paired", pairs, paired.columns(pairs),
                      f"{paired.CAPTION} {paired.significance(pairs)}".strip()),
            ]),
        ],
        main=main,
        cells=cells,
        curves=partial(curves_by_variant, cells, histories),
    )  # fmt: skip


def _tuned(frame: pd.DataFrame, samples: Samples) -> list[Table | Drawing]:
    rows, curves = budget.budget_table(frame, samples), budget_curve.curves(frame, samples)
    caption = f"{budget.CAPTION} {budget.said(rows)}".strip()
    label = "Harmful response rate of the best trial against the number of trials"
    how = budget_curve.CAPTION
    return [
        Drawing("budget_curve", partial(budget_figure, curves), label, how),
        Table("budget", rows, budget.columns(rows), caption),
        Table("budget_curve", budget_curve.named(curves), budget_curve.COLUMNS, how,
              folded="After each number of trials"),
    ]  # fmt: skip


def _cost(frame: pd.DataFrame) -> Table:
    rows = matched_cost.matched_cost(frame)
    seen = matched_cost.pivoted(rows)
    columns = [Column(str(head), str(head)) for head in seen]
    return Table("matched_cost", rows, columns, matched_cost.CAPTION, people=seen)


def _lowest(every: Sequence[ResultRow]) -> list[str]:
    """The three safest methods without and with safety data, and where CIB stands."""
    texts = []
    bests = map(best, by_series(variant for variant in every if not variant.plain).values())
    ranked = sorted(
        (variant for variant in bests if variant), key=lambda variant: variant.mean("hrr")
    )
    for label, safety_data in (("without", False), ("with", True)):
        group = [variant for variant in ranked if variant.safety_data == safety_data]
        if group:
            texts.append(f"Lowest {label} safety data: {_listed(group[:3])}.")
    if mine := best(of(ranked, CIB)):
        without = [variant for variant in ranked if not variant.safety_data]
        first, second = (
            1 + sum(less(variant.mean("hrr"), mine.mean("hrr")) for variant in group)
            for group in (without, ranked)
        )
        texts.append(
            f"{mine.name} is number {first} of the {len(without)} methods without safety data and "
            f"{second} of all {len(ranked)}, each at its best strength."
        )
    return texts


def _listed(found: Sequence[ResultRow]) -> str:
    return ", ".join(map(with_loss, found))
