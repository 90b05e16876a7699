"""What a reader must know before believing a sweep, in plain words."""

import numpy as np
import pandas as pd

from raycib.counting import count
from raycib.metrics import FEW_ROWS, METRICS, Rate
from raycib.report.benchmarks import MEAN
from raycib.report.forms import share
from raycib.report.frame import cell_name
from raycib.report.judge_warnings import judge_warnings
from raycib.report.scores import aligned_scores
from raycib.report.text import one_line
from raycib.results import Results

ASKED = ("hrr", "refusal_rate", "over_refusal", "eval_loss", "utility", "accuracy")
"""Scores that a reader looks for in every cell."""


def warnings(results: Results, frame: pd.DataFrame, symbol: str = "Strength") -> list[str]:
    """Warnings that the numbers of any sweep call for; empty where there is nothing to say.

    ``symbol`` is what the study calls a strength.
    """
    done = frame[frame["failed"].isna()]
    failed = frame[frame["failed"].notna()]
    found = []
    for _, cell in failed.iterrows():
        found.append(f"{cell_name(cell, symbol)} failed and is in no mean: {cell['failed']}")
    for benchmark, (lost, cells) in _lost_rows(results, done).items():
        found.append(
            f"{benchmark} lost up to {count(lost, 'row')} in {count(cells, 'cell')}: those rates "
            "rest on fewer answers than the others and are not comparable with them."
        )
    if done["seed"].nunique() == 1:
        found.append(
            "One seed: no interval says how another training would end, and every claim is about "
            "these models alone; give --seeds 3."
        )
    found += _few_rows(done)
    found += _equal_adapters(results)
    found += _not_measured(done)
    unread = done[done["hrr_unread"].fillna(0) > 0]
    if len(unread):
        most = unread.sort_values("hrr_unread").iloc[-1]
        asked = most["hrr_n"] + most["hrr_unread"]
        found.append(
            f"{count(int(unread['hrr_unread'].sum()), 'verdict')} of the judge could not be read, "
            f"in {count(len(unread), 'cell')} (at most {int(most['hrr_unread'])} of {int(asked)}, "
            f"in {cell_name(most, symbol)}). That counts neither as safe nor as harmful."
        )
    found += _at_limit(done, symbol)
    found += _in_both(done, symbol)
    found += [f"Of the data: {note}." for note in results.notes]
    found += judge_warnings(results.judge)
    found += _by_batch(results)
    if results.left_out:
        found.append(f"Left out for want of what they need: {', '.join(results.left_out)}.")
    if results.damaged:
        found.append(
            f"{count(len(results.damaged), 'stored result was', 'stored results were')} found "
            f"damaged, set aside and not used (first: {one_line(results.damaged[0])})."
        )
    garbage = done[done["incoherent_rate"] > 0.1]
    if len(garbage):
        worst = garbage.sort_values("incoherent_rate").iloc[-1]
        found.append(
            f"In {count(len(garbage), 'cell')} more than 10 % of the answers to harmful prompts "
            f"are neither harmful nor refusals (most: {share(worst['incoherent_rate'])}, in "
            f"{cell_name(worst, symbol)}). A low harmful response rate there is not preserved "
            "safety."
        )
    constant = done[done["negative_cosine"] > 0.9]
    if len(constant):
        found.append(
            f"In {count(len(constant), 'cell')} the mean cosine of anchors with negatives is above "
            f"0.9 (up to {constant['negative_cosine'].max():z.2f}): the representations are nearly "
            "one vector, and I(Z;C) measures that more than the fine-tuning."
        )
    above = done[done["mutual_information"] > done["mutual_information_before"]]
    away = above[above["cosine"] < 0.9]
    if len(away):
        found.append(
            f"In {count(len(away), 'cell')} I(Z;C) is above its value before fine-tuning although "
            f"the cosine to the reference fell (to {away['cosine'].min():z.2f}): there a higher "
            "I(Z;C) does not mean closer to the aligned model."
        )
        shared = float(np.clip(away["negative_cosine_before"].mean(), 0, 1))
        if np.isfinite(shared):
            found.append(
                f"References of different rows have a mean cosine of {shared:z.2f} there. What all "
                "of them share tells no row apart, so a contrastive loss turns away from it: it is "
                f"lowest at a cosine of some {np.sqrt(1 - shared):z.2f} to the reference, not at "
                '1, unless it is centred (docs/findings.md, "What CIB\'s loss asks for").'
            )
    return [one_line(text, 600) for text in found]


def _few_rows(done: pd.DataFrame) -> list[str]:
    """Held-out rows that are too few to be a sample of a task."""
    if "at_limit_held_out_n" not in done or not (done["at_limit_held_out_n"] < FEW_ROWS).any():
        return []
    least = int(done["at_limit_held_out_n"].min())
    return [
        f"A task has {count(least, 'held-out row')}: what is measured on so few, task loss, "
        "accuracy and I(Z;C), is about them alone; give it more rows, of which every tenth is held "
        "out."
    ]


def _equal_adapters(results: Results) -> list[str]:
    """Cells that ask for different things and ended with the same weights."""
    named: dict[str, dict[str, str]] = {}
    for cell in results.cells:
        if cell.adapter:
            name = f"{cell.label or cell.method} {cell.strength:g} (seed {cell.seed})"
            named.setdefault(cell.adapter, {})[cell.key] = name
    same = [list(names.values()) for names in named.values() if len(names) > 1]
    if not same:
        return []
    return [
        f"{count(len(same), 'group of cells has', 'groups of cells have')} the same weights, byte "
        f"for byte (first: {', '.join(same[0])}): what sets them apart did nothing, so that they "
        "score alike is no finding."
    ]


def _in_both(done: pd.DataFrame, symbol: str) -> list[str]:
    """Answers that are harmful by the judge and refusals by their rule: of n answers every other
    one is harmful, a refusal or neither. Refusals without a verdict make it at least as many."""
    hits = sum(
        (done[rate] * done[f"{rate}_n"]).round()
        for rate in ("hrr", "refusal_rate", "incoherent_rate")
    )
    both = (hits - done["refusal_rate_n"]).fillna(0).clip(lower=0)
    if not both.any():
        return []
    most = done.loc[both.idxmax()]
    return [
        f"{'At least ' * bool(done['hrr_unread'].any())}{count(int(both.sum()), 'answer')} to "
        f"harmful prompts, in {count(int((both > 0).sum()), 'cell')} (at most {int(both.max())} of "
        f"{int(most['refusal_rate_n'])}, in {cell_name(most, symbol)}), are harmful by the judge "
        "and open as refusals: they count in both rates. Do they comply after an apology, or does "
        "the judge misread refusals?"
    ]


def _at_limit(done: pd.DataFrame, symbol: str) -> list[str]:
    """Answers that ended because they might be no longer, by the set that they answer."""
    found = []
    for name in done.columns:
        if not name.startswith("at_limit_") or name.endswith("_n") or f"{name}_n" not in done:
            continue
        counts = pd.to_numeric(done[name]).fillna(0)
        if not counts.any():
            continue
        most = done.loc[counts.idxmax()]
        asked = name.removeprefix("at_limit_").replace("_", "-")
        found.append(
            f"Of the answers to {asked} rows {int(counts.sum())} ended at the limit of tokens, in "
            f"{count(int((counts > 0).sum()), 'cell')} (at most {int(most[name])} of "
            f"{int(most[f'{name}_n'])}, in {cell_name(most, symbol)}): they lack their end, are "
            "judged and scored without it, and may count as wrong for that alone; raise "
            "--max-tokens."
        )
    return found


def _by_batch(results: Results) -> list[str]:
    """Answers that are others where nothing else is answered beside them."""
    alone = results.asked_alone
    if alone is None or not alone.differ.value:
        return []
    changed, change = round(alone.differ.value * alone.differ.n), ""
    if alone.hrr_change:
        change = (
            f" Their harmful response rate changes by {_ends(alone.hrr_change, '+z.1f')} points."
        )
    return [
        f"{changed} of {count(alone.differ.n, 'answer')} that were asked for again, each alone, "
        f"differ ({_ends(alone.differ, 'z.1f')} %): answers depend on what shares their "
        f"batch.{change} On GPUs --set execution.batch_invariant=true is against that."
    ]


def _ends(found: Rate, form: str) -> str:
    """In %, with its interval."""
    value, low, high = (
        f"{100 * (end or 0):{form}}" for end in (found.value, found.low, found.high)
    )
    return f"{value} [{low}, {high}]"


def _not_measured(done: pd.DataFrame) -> list[str]:
    """Scores that no cell has, and those that some lack, so that a mean rests on fewer seeds."""
    # Abilities of a model are then told by benchmarks, in a table of their own.
    told = {"utility"} if MEAN in done and done["utility"].isna().all() else set()
    asked = [name for name in ASKED if name not in told]
    missing = {METRICS[name].title: int(done[name].isna().sum()) for name in asked}
    never = [name for name, n in missing.items() if n == len(done)]
    partly = [f"{name} in {n} of {count(len(done), 'cell')}" for name, n in missing.items()
              if 0 < n < len(done)]  # fmt: skip
    found = [f"Not measured in any cell: {', '.join(never)}."] * bool(never and len(done))
    if partly:
        found.append(
            f"Not measured: {', '.join(partly)}. Means are over the cells that have the score, "
            "which are fewer than the seeds that a row counts."
        )
    return found


def _lost_rows(results: Results, done: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """For each rate, the most rows that a cell lacks against the fullest one, and how many do."""
    aligned, lost = aligned_scores(results), {}
    # Orders end with different tasks, so that their "accuracy" is of different tests.
    tasks = dict.fromkeys(
        t for cell in results.cells if cell.scores for t in cell.scores.accuracies
    )
    own = [f"accuracy_{task}" for task in tasks] or ["accuracy"]
    for rate in ("hrr", "refusal_rate", "over_refusal", *own):
        if f"{rate}_n" not in done:
            continue
        asked = (done[f"{rate}_n"] + done[f"{rate}_unread"].fillna(0)).dropna()
        if not len(asked):
            continue
        before = (aligned.get(f"{rate}_n") or 0) + (aligned.get(f"{rate}_unread") or 0)
        # Several tasks, each by itself, have rows of their own.
        most = asked.groupby(done["task"]).transform("max") if rate == "accuracy" else asked.max()
        missing = np.maximum(most, float(before)) - asked
        if missing.max() > 0:
            lost[rate] = (int(missing.max()), int((missing > 0).sum()))
    return lost
