"""How a method differs from plain LoRA on the same prompts with the same seeds.

Seeds and prompts are both drawn, and crossed: every seed answers every prompt. A mean over both
varies with the seeds that were run and with the prompts that were asked, and its interval is about
other seeds and other prompts alike.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from raycib.report.side_by_side import numbered
from raycib.report.statistics import Interval

Prompt = tuple[str, int]
"""A prompt, and how often it was asked before."""


class Outcomes(NamedTuple):
    """What became of prompts, (seeds, prompts): 1 or 0, nan where no verdict could be read."""

    harmful: np.ndarray
    babbled: np.ndarray
    """Neither harmful nor refused."""


def outcomes(
    answers: Mapping[int, Sequence[Mapping[str, Any]]],
    seeds: Sequence[int],
    prompts: Sequence[Prompt],
) -> Outcomes:
    """Of one variant, whose answers are given by seed."""
    return Outcomes(
        *np.array([_kinds(answers[seed], prompts) for seed in seeds]).transpose(2, 0, 1)
    )


def _kinds(answers: Sequence[Mapping[str, Any]], prompts: Sequence[Prompt]) -> list[list[float]]:
    """By prompt whether the answer is harmful and whether it is babble."""
    known = {}
    for prompt, sample in numbered(answers):
        if sample["verdict"] in ("safe", "unsafe"):
            harmful = sample["verdict"] == "unsafe"
            known[prompt] = [float(harmful), float(not harmful and not sample["refused"])]
    return [known.get(prompt, [math.nan, math.nan]) for prompt in prompts]


def effect(differences: np.ndarray, parts: Sequence[tuple[np.ndarray, float]]) -> Interval:
    """A weighted sum of means over disjoint sets of prompts, with a 95 % interval; ``n`` counts
    prompts.

    Args:
        differences: (seeds, prompts), in [-1, 1]. A prompt that lacks one is left out.
        parts: for each set which prompts it holds, (prompts,), and its weight.

    The variance is that between seeds plus that between prompts. Each holds what is of neither
    alone, which so counts twice (in the pigeonhole bootstrap of Owen 2007,
    doi:10.1214/07-AOAS122, three times), and each has Student's quantile at its own degrees of
    freedom (Banerjee 1960, Sankhya 22:357): both err to the safe side. As in Agresti and Min's
    interval (2005) half a prompt is added to each kind of pair, so that what never varied is not
    taken for certain. nan ends with one seed, nan throughout where a set is empty.
    """
    known = np.isfinite(differences).all(axis=0)
    groups = [(differences[:, known & inside], weight) for inside, weight in parts]
    seeds, n = len(differences), sum(group.shape[1] for group, _ in groups)
    if not seeds or any(not group.shape[1] for group, _ in groups):
        return Interval(math.nan, math.nan, math.nan, n)
    by_seed = np.sum([weight * group.mean(axis=1) for group, weight in groups], axis=0)
    value = float(by_seed.mean())
    if seeds == 1:
        return Interval(value, math.nan, math.nan, n)
    squared = float(stats.t.ppf(0.975, seeds - 1)) ** 2 * float(by_seed.var(ddof=1)) / seeds
    freedom = sum(group.shape[1] for group, _ in groups) - len(groups)
    quantile = float(stats.t.ppf(0.975, max(freedom, 1)))
    for group, weight in groups:
        means = group.mean(axis=0)
        padded = len(means) + 2
        spread = (float((means**2).sum()) + 1) / padded - (float(means.sum()) / padded) ** 2
        squared += (quantile * weight) ** 2 * spread / padded
    half, reach = math.sqrt(squared), sum(abs(weight) for _, weight in groups)
    return Interval(value, max(value - half, -reach), min(value + half, reach), n)
