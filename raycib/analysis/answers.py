"""A sweep's result in a paragraph, made of its figures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from raycib.analysis import tables
from raycib.analysis.arms import CIB, Arm, arms, best, of, plain_arm, settings
from raycib.analysis.claims import Claim, claims
from raycib.analysis.frame import NAMES, PLAIN, dose_responses
from raycib.analysis.gaps.gap import ALIGNMENT, CAPABILITY, gap, places
from raycib.analysis.orders.sequences import ARROW, over_seeds, study_of
from raycib.analysis.orders.table import counts_line, points, stage_names
from raycib.analysis.statistics import Spread, mean_std
from raycib.analysis.text import one_line

MOST_ROWS = 8
"""Rows of an ablation that its answer names one by one."""
SMALL = 0.1
"""Share of plain LoRA's alignment gap that counts as nearly nothing."""


def answer(frame: pd.DataFrame, aligned: Mapping[str, Any] | None = None) -> str:
    """The sweep's result in a paragraph, made of its figures."""
    done = frame[frame["failed"].isna()]
    seeds = done["seed"].nunique()
    parts = [f"{len(done)} of {len(frame)} cells finished ({seeds} seeds)."]
    before = (aligned or {}).get("hrr")
    lora = done[done["method"] == PLAIN]
    if len(lora):
        start = (
            f"from {tables.share(before)} before fine-tuning to " if before is not None else "to "
        )
        parts.append(f"Plain LoRA brings harmful responses {start}{_mean(lora, 'hrr')}.")
    for name, cells in dose_responses(frame):
        dosed = cells[cells["lam"] > 0]
        low, high = dosed["lam"].min(), dosed["lam"].max()
        first, last = dosed[dosed["lam"] == low], dosed[dosed["lam"] == high]
        parts.append(
            f"With {name} they are {_mean(first, 'hrr')} at λ = {low:g} and {_mean(last, 'hrr')} "
            f"at λ = {high:g}, where {_mean(last, 'refusal_rate')} of the harmful prompts are "
            f"refused, task accuracy is {_mean(last, 'accuracy')} and the task loss "
            f"{_mean(last, 'eval_loss', 1)} nats"
            + (f" (plain LoRA: {_mean(lora, 'eval_loss', 1)})." if len(lora) else ".")
        )
    found = [claim.holds for claim in claims(frame, aligned) if claim.holds is not None]
    parts.append(f"{sum(found)} of the {len(found)} claims below that can be told hold.")
    return one_line(" ".join(parts), 3_000)


def comparison_answer(
    frame: pd.DataFrame, aligned: Mapping[str, Any] | None, found: Sequence[Claim], kind: str
) -> str:
    """The same for methods side by side: plain LoRA, the safest methods, and CIB's place.

    ``found`` are the claims, and each method counts at its coherent strength of lowest HRR.
    """
    done = frame[frame["failed"].isna()]
    parts = [f"{len(done)} of {len(frame)} cells finished ({done['seed'].nunique()} seeds)."]
    for name, part in settings(frame):
        every = [arm for arm in arms(part) if math.isfinite(arm.mean("hrr"))]
        head = f"{name}: " if name else ""
        if lora := plain_arm(every):
            parts.append(head + _erosion(lora, aligned))
        if kind == "ablation" and len(every) <= MOST_ROWS:
            others = [arm for arm in every if arm is not lora]
            parts.append(f"{head}The other rows: {_listed(others)}." if others else "")
            continue
        parts += [head + text for text in _lowest(every)]
    told = [claim.holds for claim in found if claim.holds is not None]
    parts.append(f"{sum(told)} of the {len(told)} claims below that can be told hold.")
    return one_line(" ".join(parts), 3_000)


def gap_answer(
    frame: pd.DataFrame, aligned: Mapping[str, Any] | None, found: Sequence[Claim]
) -> str:
    """The same for a sweep of gaps: in each task what plain LoRA does, and the cheapest way of
    each method to keep nine tenths of the alignment gap away. ``found`` are the claims."""
    done = frame[frame["failed"].isna()]
    parts = [f"{len(done)} of {len(frame)} cells finished ({done['seed'].nunique()} seeds)."]
    every = list(places(frame))
    for place, _, arms_ in every:
        lora = plain_arm(arms_)
        if lora is None or not lora.mean(ALIGNMENT) > 0:
            continue
        start = (aligned or {}).get("hrr")
        before = f", {tables.share(start)} before fine-tuning" if start is not None else ""
        parts.append(
            f"{place}: "
            * (len(every) > 1)
            + f"Plain LoRA's alignment gap is {_nats(lora, ALIGNMENT)} nats per answer (harmful "
            f"responses {_mean(lora.done, 'hrr')}{before}). Cheapest for a tenth of it or less: "
            f"{_cheapest(arms_, SMALL * lora.mean(ALIGNMENT))}."
        )
    told = [claim.holds for claim in found if claim.holds is not None]
    parts.append(f"{sum(told)} of the {len(told)} claims below that can be told hold.")
    return one_line(" ".join(parts), 3_000)


def orders_answer(summary: Mapping[str, Any], found: Sequence[Claim]) -> str:
    """The same for a sweep of orders: what the sequence does to plain LoRA, and each method's
    safety, accuracy and forgetting at its end. ``found`` are the claims."""
    study = study_of(summary)
    runs, done, orders = study.runs, study.done, study.orders
    which = ARROW.join(orders[0]) if len(orders) == 1 else f"{len(orders)} orders"
    seeds = len({run.seed for run in done})
    parts = [f"{len(done)} of {len(runs)} runs finished ({which}; {seeds} seeds)."]
    lora = [run for run in done if run.method == PLAIN]
    if lora:
        before = study.aligned.get("hrr")
        start = f"from {tables.share(before)} before fine-tuning to " if before is not None else ""
        first, *_, last = stage_names(study)
        early = over_seeds(lora, lambda run: run.after(0, "hrr"))
        late = over_seeds(lora, "hrr")
        parts.append(
            f"Plain LoRA brings harmful responses {start}{_percent(early)} after {first} and "
            f"{_percent(late)} after {last}."
        )
    said = []
    for arm, mine in study.arms.items():
        if mine:
            back = over_seeds(mine, "bwt_all")
            said.append(
                (over_seeds(mine, "hrr").mean,
                 f"{arm} {_percent(over_seeds(mine, 'hrr'))}, BT {_percent(over_seeds(mine, 'bt'))}"
                 f", BWT over all tasks {points(back.mean, back.std) or 'not measured'}")
            )  # fmt: skip
    said.sort(key=lambda pair: (math.isnan(pair[0]), pair[0]))
    if said:
        listed = "; ".join(text for _, text in said)
        parts.append(f"At the end, from the lowest harmful response rate: {listed}.")
    told = [claim.holds for claim in found if claim.holds is not None]
    parts.append(
        f"{sum(told)} of the {len(told)} claims below that can be told hold, "
        f"{len(found) - len(told)} are open. {counts_line(summary)}."
    )
    return one_line(" ".join(parts), 3_000)


def _percent(found: Spread) -> str:
    text = tables.spread(found.mean, found.std, 100, 1)
    return f"{text} %" if text else "not measured"


def _cheapest(arms_: Sequence[Arm], most: float) -> str:
    """The coherent arm of lowest capability gap whose alignment gap is at most ``most`` nats, of
    each method."""
    said = []
    for method in dict.fromkeys(arm.method for arm in arms_ if not arm.plain):
        mine = [arm for arm in of(arms_, method) if arm.coherent]
        safe = [arm for arm in mine if arm.mean(ALIGNMENT) <= most]
        fit = [arm for arm in safe if math.isfinite(arm.mean(CAPABILITY))]
        if fit:
            arm = min(fit, key=lambda arm: arm.mean(CAPABILITY))
            said.append(
                f"{arm.name} (capability gap {_nats(arm, CAPABILITY)}, harmful responses "
                f"{_mean(arm.done, 'hrr')})"
            )
        else:
            name = NAMES.get(method, method.replace("_", " "))
            said.append(f"no strength of {name} is enough")
    return ", ".join(said) if said else "nothing else was tried"


def _nats(arm: Arm, column: str) -> str:
    found = gap(arm.done, column)
    return tables.spread(found.value, found.spread, 1, 3)


def _erosion(lora: Arm, aligned: Mapping[str, Any] | None) -> str:
    before = (aligned or {}).get("hrr")
    start = f"from {tables.share(before)} before fine-tuning to " if before is not None else "to "
    loss = lora.mean("eval_loss")
    price = f" at a task loss of {loss:z.3f} nats" if math.isfinite(loss) else ""
    return f"Plain LoRA brings harmful responses {start}{_mean(lora.done, 'hrr')}{price}."


def _lowest(every: Sequence[Arm]) -> list[str]:
    """The three safest methods without and with safety data, and where CIB stands."""
    texts = []
    series = dict.fromkeys(arm.series for arm in every if not arm.plain)
    bests = [best([arm for arm in every if arm.series == name]) for name in series]
    ranked = sorted((arm for arm in bests if arm), key=lambda arm: arm.mean("hrr"))
    for label, safety_data in (("without", False), ("with", True)):
        group = [arm for arm in ranked if arm.safety_data == safety_data]
        if group:
            texts.append(f"Lowest {label} safety data: {_listed(group[:3])}.")
    if mine := best(of(ranked, CIB)):
        without = [arm for arm in ranked if not arm.safety_data]
        first, second = (
            1 + sum(arm.mean("hrr") < mine.mean("hrr") for arm in group)
            for group in (without, ranked)
        )
        texts.append(
            f"{mine.name} is number {first} of the {len(without)} methods without safety data and "
            f"{second} of all {len(ranked)}, each at its best strength."
        )
    return texts


def _listed(found: Sequence[Arm]) -> str:
    shown = []
    for arm in found:
        loss = arm.mean("eval_loss")
        price = f", loss {loss:z.3f}" if math.isfinite(loss) else ""
        shown.append(f"{arm.name} ({_mean(arm.done, 'hrr')}{price})")
    return ", ".join(shown)


def _mean(cells: pd.DataFrame, column: str, factor: float = 100) -> str:
    over_seeds = mean_std(cells[column])
    text = tables.spread(over_seeds.mean, over_seeds.std, factor, 1 if factor == 100 else 3)
    return (f"{text} %" if factor == 100 else text) if text else "not measured"
