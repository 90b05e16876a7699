"""What the trade-offs paper claims of safety and capability, held against one sweep of gaps.

Each rule is fixed here, before the data are seen, and stands in the claim's own words. Two gaps
differ where the 95 % interval of their difference, paired by seed, lies apart from 0; a claim that
hangs on differences that do not is open.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pandas as pd

from raycib.report.claims import Claim, all_told, coherent, erosion, of_part
from raycib.report.statistics import front
from raycib.report.variants import ResultRow, plain_variant
from raycib.studies.tradeoff.bound_claims import bound_claims, tax_claims
from raycib.studies.tradeoff.bounds import bounds
from raycib.studies.tradeoff.gap import (
    ALIGNMENT,
    BALL,
    CAPABILITY,
    CASE1,
    PENALTY,
    Gap,
    Place,
    gap,
    lines,
    places,
    proxy_of,
    smaller,
)  # fmt: skip
from raycib.studies.tradeoff.theory import Theory, by_similarity, more_similar

MOST_SHOWN = 12
"""Comparisons that a claim's evidence spells out."""
Told = list[tuple[bool | None, str]]
"""Whether each comparison holds, and its figures."""
SIGNS = {True: "<", False: ">", None: "≈"}


def gap_claims(
    frame: pd.DataFrame, aligned: Mapping[str, Any], theory: Theory | None
) -> list[Claim]:
    """The trade-offs paper's claims and theorems, the CIB paper's on the alignment tax, and what
    both rest on. What was not run, or has no ``theory``, makes no claim."""
    every = list(places(frame))
    made: list[Claim | None] = []
    for place, _, variants in every:
        if lora := plain_variant(variants):
            made += of_part(place if len(every) > 1 else "", erosion(lora.done, aligned))
    made += [_similar(every, theory), *_stronger(every), _overlap(every, theory)]
    made += [_restrictive(every), _tighter(every)]
    made += [*bound_claims(bounds(frame, theory)), *tax_claims(frame), *coherent(frame)]
    return [claim for claim in made if claim]


def _similar(every: Sequence[Place], theory: Theory | None) -> Claim | None:
    """Rule: of neighbours in similarity, the more similar proxy's gap is lower at every λ."""
    text = (
        "A proxy more like the original safety data gives a smaller alignment gap (Theorem 1): at "
        "every λ, of two neighbours in total variation and divergence the nearer one's gap is "
        "below the other's (open where the 95 % interval of some difference contains 0)"
    )
    told: Told = []
    several = False
    for place, _, variants in every:
        found = {proxy_of(mine[0]): mine for mine in lines(variants, CASE1).values()}
        several |= len(found) > 1
        known = [p for p in (theory.proxies if theory else ()) if p.name in found]
        for one, other in pairwise(by_similarity(known)):
            if not more_similar(one, other):  # the terms do not order them
                continue
            rows, names = (found[one.name], found[other.name]), (one.name, other.name)
            told += _compared(_head(place, every), rows, names, ALIGNMENT)
    if not several:
        return None
    return _claim(text, told, "which proxy is the more similar one is not known")


def _stronger(every: Sequence[Place]) -> list[Claim]:
    """Rules: along λ the alignment gap falls and the capability gap rises (see ``_along``)."""
    rules = (
        (ALIGNMENT, True, "A larger λ gives a smaller alignment gap in Case I (Theorem 1)"),
        (CAPABILITY, False, "A larger λ gives a larger capability gap in Case I (Theorem 2)"),
    )
    found = []
    for column, falls, text in rules:
        rows = [
            (f"{_head(place, every)}{proxy_of(mine[0])}", mine)
            for place, _, variants in every
            for mine in lines(variants, CASE1).values()
        ]
        if claim := _along(rows, column, falls, text):
            found.append(claim)
    return found


def _tighter(every: Sequence[Place]) -> Claim | None:
    """Rule: along a rising penalty and a falling radius the alignment gap falls."""
    text = "A larger penalty or smaller radius gives a smaller alignment gap in Case II (Theorem 3)"
    rows = []
    for place, _, variants in every:
        for method, word in ((PENALTY, "penalty"), (BALL, "ball")):
            for mine in lines(variants, method).values():
                # A ball is the tighter the smaller its radius.
                ordered = mine[::-1] if method == BALL else mine
                rows.append((f"{_head(place, every)}{word}", ordered))
    return _along(rows, ALIGNMENT, True, text)


def _along(
    rows: Iterable[tuple[str, Sequence[ResultRow]]], column: str, falls: bool, text: str
) -> Claim | None:
    """Rule for every row of variants: no step goes the wrong way, and the two ends differ the right
    way."""
    told: Told = []
    for name, variants in rows:
        known = [variant for variant in variants if not math.isnan(variant.mean(column))]
        if len(known) < 2:
            continue
        values = [gap(variant.done, column) for variant in known]
        rises = [smaller(a, b, column) for a, b in [*pairwise(known), (known[0], known[-1])]]
        *steps, ends = [None if up is None else up is not falls for up in rises]
        path = " → ".join(f"{value.value:z.3f}" for value in values)
        strengths = f"{known[0].strength:g} to {known[-1].strength:g}"
        told.append((False if False in steps else ends, f"{name}, {strengths}: {path}"))
    if not told:
        return None
    text += (
        ": in every row no step goes the other way and the gap at the last strength lies "
        f"{'below' if falls else 'above'} the one at the first (95 % intervals of the differences)"
    )
    return _claim(text, told)


def _overlap(every: Sequence[Place], theory: Theory | None) -> Claim | None:
    """Rule: of neighbours in overlap, the one with less has the lower capability gap at every λ."""
    found: dict[str, list[ResultRow]] = {}
    for place, _, variants in every:
        candidates = {proxy_of(mine[0]): mine for mine in lines(variants, CASE1).values()}
        named = {n: theory.proxy(n) for n in candidates} if theory else {}
        original = next((n for n, proxy in named.items() if proxy and proxy.original), None)
        if original or len(candidates) == 1:
            found[place] = candidates[original or next(iter(candidates))]
    if len(found) < 2:
        return None
    text = (
        "Less overlap of prompts makes safety cheaper (Theorem 2): at every λ of Case I with the "
        "original safety data, of two tasks next to each other in overlap the one with less has "
        "the smaller capability gap (open where the 95 % interval of some difference contains 0)"
    )
    shares = []
    for place, task, _ in every:
        known = theory if place in found else None
        shared = known.overlap(proxy_of(found[place][0]), task) if known else None
        if shared and shared.overlap is not None:
            shares.append((shared.overlap, place))
    shares.sort()
    told: Told = []
    for (less, one), (more, other) in pairwise(shares):
        if less != more:
            names = f"{one} ({100 * less:z.0f} %)", f"{other} ({100 * more:z.0f} %)"
            told += _compared("", (found[one], found[other]), names, CAPABILITY)
    return _claim(text, told, "the tasks' overlaps are equal or not known")


def _restrictive(every: Sequence[Place]) -> Claim | None:
    """Rule: each variant on Case II's front costs more than Case I's cheapest that is as safe."""
    text = (
        "Case II is more restrictive than Case I: each variant on Case II's front (penalty and "
        "ball) whose mean alignment gap lies between Case I's smallest and largest has a larger "
        "capability gap than the cheapest variant of Case I whose mean alignment gap is no larger "
        "(open where the 95 % interval of some difference contains 0)"
    )
    told: Told = []
    outside = {"looser": 0, "tighter": 0}
    both = False
    for place, _, variants in every:
        one, two = (_measured(variants, *kinds) for kinds in ((CASE1,), (PENALTY, BALL)))
        if not one or not two:
            continue
        both = True
        best = set(front([_point(variant) for variant in two]))
        for variant in (variant for variant in two if _point(variant) in best):
            level, levels = _point(variant)[1], [_point(other)[1] for other in one]
            if not min(levels) <= level <= max(levels):
                outside["looser" if level > max(levels) else "tighter"] += 1
                continue
            cheapest = min((a for a in one if _point(a)[1] <= level), key=_point)
            a, b = gap(cheapest.done, CAPABILITY), gap(variant.done, CAPABILITY)
            holds = smaller(cheapest, variant, CAPABILITY)
            figures = f"{_pair(cheapest, a)} {SIGNS[holds]} {variant.name} {_pair(variant, b)}"
            told.append((holds, f"{_head(place, every)}{cheapest.name} {figures}"))
    if not both:
        return None
    beyond = (
        f"variants of Case II beyond Case I's range: {outside['tighter']} safer than all of it, "
        f"{outside['looser']} less safe"
    )
    claim = _claim(text, told)
    return replace(claim, evidence="; ".join(filter(None, [claim.evidence, beyond])))


def _measured(variants: Sequence[ResultRow], *methods: str) -> list[ResultRow]:
    found = [variant for variant in variants if variant.method in methods and len(variant.done)]
    return [variant for variant in found if all(map(math.isfinite, _point(variant)))]


def _point(variant: ResultRow) -> tuple[float, float]:
    return variant.mean(CAPABILITY), variant.mean(ALIGNMENT)


def _pair(variant: ResultRow, capability: Gap) -> str:
    return f"{capability.value:z.3f} (alignment {variant.mean(ALIGNMENT):z.3f})"


def _compared(
    head: str, rows: Sequence[Sequence[ResultRow]], names: Sequence[str], column: str
) -> Told:
    """Whether the first of two lines has the lower gap, at each strength at which both have one."""
    first, second = (
        {row.strength: row for row in line if not math.isnan(row.mean(column))} for line in rows
    )
    told: Told = []
    for strength in (strength for strength in first if strength in second):
        holds = smaller(first[strength], second[strength], column)
        a, b = (gap(line[strength].done, column).value for line in (first, second))
        figures = f"{names[0]} {a:z.3f} {SIGNS[holds]} {names[1]} {b:z.3f}"
        told.append((holds, f"{head}λ = {strength:g}: {figures}"))
    return told


def _head(place: str, every: Sequence[Place]) -> str:
    return f"{place}, " if len(every) > 1 else ""


def _claim(text: str, told: Told, otherwise: str = "") -> Claim:
    """How many comparisons hold, fail and are open, then the first of them, those that fail and
    those that are open before those that hold; ``otherwise`` where there is none."""
    if not told:
        return Claim(text, None, otherwise)
    counts = [sum(holds is word for holds, _ in told) for word in (True, False, None)]
    head = f"{counts[0]} of {len(told)} hold, {counts[1]} fail, {counts[2]} are open"
    pairs = sorted(told, key=lambda pair: (False, None, True).index(pair[0]))
    shown = [evidence for _, evidence in pairs[:MOST_SHOWN]]
    if rest := [holds for holds, _ in pairs[MOST_SHOWN:]]:
        how = "hold" if all(rest) else "hold, fail or are open, as counted"
        shown.append(f"{len(rest)} more that {how}")
    return Claim(text, all_told(holds for holds, _ in told), "; ".join([head, *shown]))
