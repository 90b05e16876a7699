"""What the paper claims of strengths, held against one sweep; every figure comes from the data.

Each rule is fixed here, before the data are seen, and stands in the claim's own words.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from raycib.counting import count
from raycib.report.claims import Claim, coherent, erosion, of_part
from raycib.report.forms import NOT_MEASURED, p_equals, share
from raycib.report.frame import PLAIN, RADII, strength_series
from raycib.report.statistics import Correlation, less, pearson
from raycib.report.variants import settings

LAST_PROMPT = "mutual_information_last_prompt"
Rule = Callable[[list[float]], bool]
"""Of the means of one seed, by rising strength."""


def claims(frame: pd.DataFrame, aligned: Mapping[str, Any]) -> list[Claim]:
    """The paper's claims, and what they rest on, for every series of strengths in ``frame``.

    Failed cells are left out; a claim that then lacks its cells holds neither way.
    """
    found = []
    for place, part in settings(frame):
        found += of_part(place, erosion(part, aligned))
    responses = list(strength_series(frame))
    for name, cells in responses:
        # A method's own cells at 0 are not plain LoRA, and are not called so.
        beside = cells[(cells["strength"] > 0) | (cells["method"] == PLAIN)]
        made = [
            _falls(cells),
            _rises(cells, "mutual_information", "I(Z;C)"),
            _rises(cells, LAST_PROMPT, "I(Z;C) at the last prompt token"),
            _correlated(cells, "mutual_information", "I(Z;C)"),
            _correlated(cells, LAST_PROMPT, "I(Z;C) at the last prompt token"),
            _utility(beside),
            _accuracy(beside),
            _loss(beside),
            _closer(beside),
        ]
        found += of_part(name if len(responses) > 1 else "", made)
    return [*found, *coherent(frame)]


def _falls(cells: pd.DataFrame) -> Claim | None:
    """Rule: never higher at the next strength, and lower at the last than at the first. A ball
    holds less the larger it is: there from the largest to the smallest."""
    goes, rule = ("rises", _backwards(_never_rises)) if _ball(cells) else ("falls", _never_rises)
    text = f"The harmful response rate {goes} as λ grows, in every seed (ties allowed on the way)"
    return _by_seed(cells, "hrr", text, rule, 100, "%")


def _rises(cells: pd.DataFrame, column: str, label: str) -> Claim | None:
    """Rule: higher at each next strength above 0, as in the paper's Figure 2a; of a ball lower."""
    goes, rule = ("falls", _backwards(_always_rises)) if _ball(cells) else ("rises", _always_rises)
    text = f"{label} {goes} with every step of λ > 0, in every seed"
    return _by_seed(cells[cells["strength"] > 0], column, text, rule, 1, "nats", cells)


def _by_seed(
    cells: pd.DataFrame,
    column: str,
    text: str,
    rule: Rule,
    factor: float,
    unit: str,
    shown: pd.DataFrame | None = None,
) -> Claim | None:
    """``rule`` on the curve of each seed; seeds that lack a strength are named, not judged."""
    if not _measured(cells, column):
        return None
    strengths = sorted(cells["strength"].unique())
    curves = cells.groupby(["seed", "strength"])[column].mean().unstack()[strengths].to_numpy(float)
    whole = curves[~np.isnan(curves).any(axis=1)] if len(strengths) > 1 else curves[:0]
    kept, partial = [rule(curve) for curve in whole.tolist()], len(curves) - len(whole)
    means = (cells if shown is None else shown).groupby("strength")[column].mean()
    decimals = 1 if factor == 100 else 3
    path = " → ".join(f"{value * factor:z.{decimals}f}" for value in means)
    steps = ", ".join(f"{strength:g}" for strength in means.index)
    evidence = f"mean over seeds {path} {unit} at λ = {steps}"
    evidence = f"{sum(kept)} of {count(len(kept), 'seed')}; {evidence}"
    if partial:
        evidence += (
            f"; {partial} of {count(partial + len(kept), 'seed')} left out for want of a strength"
        )
    return Claim(text, all(kept) if kept else None, evidence)


def _correlated(cells: pd.DataFrame, column: str, label: str) -> Claim | None:
    """Rule: r over the means at λ > 0 has a Fisher interval below 0, and no seed has r >= 0."""
    positive = cells[cells["strength"] > 0]
    if not _measured(positive, column) or not _measured(positive, "hrr"):
        return None
    text = (
        f"{label} and the harmful response rate go oppositely over λ > 0 (95 % interval of r "
        "over the seed means below zero, r negative in every seed)"
    )
    means = positive.groupby("strength")[[column, "hrr"]].mean()
    whole = pearson(means[column], means["hrr"])
    by_seed = positive[["seed", column, "hrr"]].groupby("seed")
    each = [pearson(part[column], part["hrr"]) for _, part in by_seed]
    rs = [c.r for c in each if c.r is not None]
    if whole.r is None or whole.high is None or not rs:
        return Claim(text, None, f"{whole.note}; n = {count(whole.n, 'strength')}")
    listed = ", ".join(f"{r:+z.3f}" for r in rs)
    holds = whole.high < 0 and max(rs) < 0
    return Claim(text, holds, f"seed means: {correlation_text(whole)}; by seed r = {listed}")


def correlation_text(found: Correlation) -> str:
    """ "r = -0.977, n = 4, 95 % interval [-1.00, -0.25], exact p = 0.0417" as far as known."""
    if found.r is None:
        return found.note
    text = f"r = {found.r:+z.3f}, n = {found.n}"
    if found.low is not None and found.high is not None:
        text += f", 95 % interval [{found.low:+z.2f}, {found.high:+z.2f}]"
    if found.p_exact is not None:
        text += f", exact {p_equals(found.p_exact)}"
    return text


def _utility(cells: pd.DataFrame) -> Claim | None:
    """Rule: the paper's own bound, a range of less than 0.5 points over λ > 0."""
    text = "Utility varies by less than 0.5 points over λ > 0 (means over seeds)"
    means = cells.groupby("strength")["utility"].mean().dropna() * 100
    positive = means[means.index > 0]
    if not len(means):
        return Claim(text, None, f"utility: {NOT_MEASURED}")
    if len(positive) < 2:
        return None
    width = positive.max() - positive.min()
    evidence = f"from {positive.min():z.1f} to {positive.max():z.1f} %, {width:z.2f} points"
    if 0 in means.index:
        evidence += f"; plain LoRA {means[0]:z.1f} %"
    return Claim(text, less(width, 0.5), evidence)


def _accuracy(cells: pd.DataFrame) -> Claim | None:
    """Rule: the paper's '> 95 % of LoRA's task performance', at every strength."""
    text = "More than 95 % of plain LoRA's task accuracy is kept at every λ"
    means = cells.groupby("strength")["accuracy"].mean().dropna()
    if not len(means):
        return Claim(text, None, f"task accuracy: {NOT_MEASURED}")
    if 0 not in means.index or len(means) < 2 or means[0] == 0:
        return None
    shares = means[means.index > 0] / means[0]
    worst = shares.idxmin()
    evidence = (
        f"lowest {share(shares.min())} of LoRA's, at λ = {worst:g}: "
        f"{share(means[worst])} against {share(means[0])}"
    )
    return Claim(text, less(0.95, shares.min()), evidence)


def _loss(cells: pd.DataFrame) -> Claim | None:
    """Rule: at most a quarter more loss at the largest λ than at the smallest above 0. None of a
    ball, whose largest holds least."""
    if _ball(cells):
        return None
    means = cells.groupby("strength")["eval_loss"].mean().dropna()
    positive = means[means.index > 0]
    if len(positive) < 2:
        return None
    first, last = positive.index[0], positive.index[-1]
    ratio = positive[last] / positive[first]
    evidence = (
        f"{positive[first]:z.3f} nats at λ = {first:g}, {positive[last]:z.3f} at λ = {last:g}: "
        f"{positive[last] - positive[first]:+z.3f} nats, {ratio:z.2f} times"
    )
    if 0 in means.index:
        evidence += f"; plain LoRA {means[0]:z.3f} nats"
    text = (
        "The task loss at the largest λ is at most 1.25 times the one at the smallest λ > 0 "
        "(the paper's worst: 1.2 → 1.5)"
    )
    return Claim(text, not less(1.25, ratio), evidence)


def _closer(cells: pd.DataFrame) -> Claim | None:
    """Rule: the cosine to the reference is nowhere below plain LoRA's."""
    means = cells.groupby("strength")["cosine"].mean().dropna()
    positive = means[means.index > 0]
    if 0 not in means.index or not len(positive):
        return None
    path = ", ".join(f"{value:z.2f}" for value in positive)
    evidence = f"cos {means[0]:z.2f} for plain LoRA, {path} at λ = "
    evidence += ", ".join(f"{strength:g}" for strength in positive.index)
    info = cells.groupby("strength")["mutual_information"].mean().dropna()
    before = cells["mutual_information_before"].dropna()
    if len(before) and len(info) and less(before.iloc[0], info.max()):
        reached, start = info.max(), before.iloc[0]
        evidence += f"; I(Z;C) reaches {reached:z.2f}, above the {start:z.2f} before fine-tuning"
    text = (
        "Fine-tuning with λ > 0 stays at least as close to the reference representations as "
        "plain LoRA (what a higher I(Z;C) is taken to mean)"
    )
    return Claim(text, not less(positive.min(), means[0]), evidence)


def _ball(cells: pd.DataFrame) -> bool:
    """Whether the strength is a radius, which holds all at 0."""
    return bool(cells["method"].isin(RADII).all())


def _backwards(rule: Rule) -> Rule:
    return lambda curve: rule(curve[::-1])


def _never_rises(curve: list[float]) -> bool:
    return not any(less(a, b) for a, b in pairwise(curve)) and less(curve[-1], curve[0])


def _always_rises(curve: list[float]) -> bool:
    return all(less(a, b) for a, b in pairwise(curve))


def _measured(cells: pd.DataFrame, column: str) -> bool:
    return column in cells and bool(cells[column].notna().any())
