"""The report of the Trade-offs paper's study: gaps, the theorems' bounds, and the alignment tax."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from raycib.report.claims import Claim
from raycib.report.figures import curves_by_variant
from raycib.report.forms import share, spread
from raycib.report.frame import NAMES
from raycib.report.headline import finished, headline, over_seeds
from raycib.report.report import Drawing, Report, Section
from raycib.report.scores import aligned_scores
from raycib.report.table import Table
from raycib.report.text import plain
from raycib.report.variants import ResultRow, named, of, plain_variant
from raycib.results import Histories, Samples
from raycib.studies.tradeoff import bounds, table, terms
from raycib.studies.tradeoff.claims import gap_claims
from raycib.studies.tradeoff.figures import figure1, figure2
from raycib.studies.tradeoff.gap import ALIGNMENT, CAPABILITY, gap, gap_frame, places
from raycib.studies.tradeoff.results import TradeoffResults
from raycib.studies.tradeoff.theory import Theory
from raycib.studies.tradeoff.warnings import warnings

SMALL = 0.1
"""Share of plain LoRA's alignment gap that counts as nearly nothing."""
FIGURE1 = (
    "Figure 1 for this sweep. Marks: means over seeds; bars: 95 % intervals; stars: plain LoRA, "
    "the end of every line at λ = 0. Gaps are not clipped: below 0 a model is better than what it "
    "is held against. Axes that span orders of magnitude are logarithmic, with a linear part "
    "around 0."
)
FIGURE2 = (
    "Figure 2 for this sweep. Grey steps: no variant whose answers to harmful prompts are at most "
    "10 % incoherent has both gaps lower. The diamond is the model before fine-tuning, whose "
    "alignment gap is 0 by definition. The first and the last strength of a line are written at "
    "its ends."
)


def report(results: TradeoffResults, samples: Samples, histories: Histories) -> Report:
    """What safety and capability cost each other, in the figures of one sweep. What was not
    measured, or not run, is left out."""
    frame, aligned, theory = gap_frame(results), aligned_scores(results), results.theory
    rows, tax = table.gaps_table(frame, aligned, theory), terms.tax_table(frame)
    main = Table(
        "gaps", rows, table.columns(rows), f"{plain(results.title)} {table.caption(rows)}",
        key=("task", "series", "strength"),
    )  # fmt: skip
    found, cells = gap_claims(frame, aligned, theory), named(frame)
    return Report(
        results=results,
        frame=frame,
        headline=gap_headline(frame, aligned, found),
        claims=found,
        sections=[
            Section("figure", "Safety against capability", "Figures", [
                Drawing("figure1", partial(figure1, frame, theory),
                        "Case I: similarity and overlap", FIGURE1),
                Drawing("figure2", partial(figure2, frame, theory), "Case II, and all methods",
                        FIGURE2),
            ]),
            Section("table", "Gaps of every method", "Gaps", [main]),
            *(_of_theory(frame, theory) if theory else ()),
            Section("tax", "Alignment tax", "Alignment tax", [
                Table("tax", tax, terms.COLUMNS, terms.TAX_CAPTION)
            ]),
        ],
        main=main,
        cells=cells,
        warnings=warnings(results, frame),
        curves=partial(curves_by_variant, cells, histories),
    )  # fmt: skip


def _of_theory(frame: pd.DataFrame, theory: Theory) -> list[Section]:
    every = bounds.bounds(frame, theory)
    looseness = bounds.summary_table(every)
    data, model = terms.data_terms(theory), terms.model_terms(theory)
    return [
        Section("bounds", "Do the theorems' bounds hold, and how loosely?", "Bounds", [
            Table("bounds_summary", looseness, bounds.summary_columns(looseness),
                  bounds.CAPTION),
            Table("bounds", every, bounds.columns(every), bounds.CAPTION,
                  folded="Every cell against every bound"),
        ]),
        Section("terms", "What the bounds are made of", "Terms", [
            Table("data_terms", data, terms.DATA, terms.DATA_CAPTION),
            Table("model_terms", model, terms.MODEL, terms.MODEL_CAPTION),
        ]),
    ]  # fmt: skip


def gap_headline(frame: pd.DataFrame, aligned: Mapping[str, Any], found: Sequence[Claim]) -> str:
    """In each task what plain LoRA does, and the cheapest way of each method to keep nine tenths
    of the alignment gap away."""
    parts, every = [finished(frame)], list(places(frame))
    for place, _, variants in every:
        lora = plain_variant(variants)
        if lora is None or not lora.mean(ALIGNMENT) > 0:
            continue
        start = aligned.get("hrr")
        before = f", {share(start)} before fine-tuning" if start is not None else ""
        parts.append(
            f"{place}: "
            * (len(every) > 1)
            + f"Plain LoRA's alignment gap is {_nats(lora, ALIGNMENT)} nats per answer (harmful "
            f"responses {over_seeds(lora.done, 'hrr')}{before}). Cheapest for a tenth of it or "
            f"less: {_cheapest(variants, SMALL * lora.mean(ALIGNMENT))}."
        )
    return headline(parts, found)


def _cheapest(variants: Sequence[ResultRow], most: float) -> str:
    """The coherent variant of lowest capability gap whose alignment gap is at most ``most`` nats,
    of each method."""
    said = []
    for method in dict.fromkeys(variant.method for variant in variants if not variant.plain):
        mine = [variant for variant in of(variants, method) if variant.coherent]
        safe = [variant for variant in mine if variant.mean(ALIGNMENT) <= most]
        fit = [variant for variant in safe if math.isfinite(variant.mean(CAPABILITY))]
        if fit:
            variant = min(fit, key=lambda variant: variant.mean(CAPABILITY))
            said.append(
                f"{variant.name} (capability gap {_nats(variant, CAPABILITY)}, harmful responses "
                f"{over_seeds(variant.done, 'hrr')})"
            )
        else:
            name = NAMES.get(method, method.replace("_", " "))
            said.append(f"no strength of {name} is enough")
    return ", ".join(said) if said else "nothing else was tried"


def _nats(variant: ResultRow, column: str) -> str:
    found = gap(variant.done, column)
    return spread(found.value, found.spread, 1, 3)
