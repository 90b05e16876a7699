"""What the trade-offs paper claims of safety and capability, held against one sweep of gaps.

Each rule is fixed here, before the data are seen, and stands in the claim's own words. Two gaps
differ where the 95 % interval of their difference, paired by seed, lies apart from 0; a claim that
hangs on differences that do not is open.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

from raycib.report.claims import Claim, all_told, coherent, erosion
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
SIGNS = {True: "<", False: ">", None: "≈"}


def gap_claims(
    frame: pd.DataFrame,
    aligned: Mapping[str, Any] | None = None,
    theory: Theory | None = None,
) -> list[Claim]:
    """The trade-offs paper's claims and theorems, the CIB paper's on the alignment tax, and what
    both rest on. What was not run, or has no ``theory``, makes no claim."""
    every = list(places(frame))
    made: list[Claim | None] = []
    for place, _, variants in every:
        lora, head = plain_variant(variants), f"{place}: " if len(every) > 1 else ""
        found = erosion(lora.done, aligned or {}) if lora else []
        made += [Claim(head + claim.text, claim.holds, claim.evidence) for claim in found]
    made += [_similar(every, theory), *_stronger(every), _overlap(every, theory)]
    made += [_restrictive(every), _tighter(every)]
    made += [*bound_claims(bounds(frame, theory)), *tax_claims(frame)]
    if frame["incoherent_rate"].notna().any():
        made.append(coherent(frame))
    return [claim for claim in made if claim]


def _similar(every: Sequence[Place], theory: Theory | None) -> Claim | None:
    """Rule: of neighbours in similarity, the more similar proxy's gap is lower at every λ."""
    text = (
        "A proxy more like the original safety data gives a smaller alignment gap (Theorem 1): at "
        "every λ, of two neighbours in total variation and divergence the nearer one's gap is "
        "below the other's (open where the 95 % interval of some difference contains 0)"
    )
    told: list[bool | None] = []
    evidence = []
    several = False
    for place, _, variants in every:
        found = {proxy_of(mine[0]): mine for mine in lines(variants, CASE1).values()}
        several |= len(found) > 1
        known = [p for p in (theory.proxies if theory else ()) if p.name in found]
        for one, other in pairwise(by_similarity(known)):
            if not more_similar(one, other):  # the terms do not order them
                continue
            for first, second in _shared(found[one.name], found[other.name], ALIGNMENT):
                a, b = gap(first.done, ALIGNMENT), gap(second.done, ALIGNMENT)
                told.append(smaller(first, second, ALIGNMENT))
                evidence.append(
                    f"{_head(place, every)}λ = {first.strength:g}: {one.name} {a.value:z.3f} "
                    f"{SIGNS[told[-1]]} {other.name} {b.value:z.3f}"
                )
    if not several:
        return None
    if not told:
        return Claim(text, None, "which proxy is the more similar one is not known")
    return Claim(text, all_told(told), _listed(told, evidence))


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
    told: list[bool | None] = []
    evidence = []
    for name, variants in rows:
        known = [variant for variant in variants if not math.isnan(variant.mean(column))]
        if len(known) < 2:
            continue
        values = [gap(variant.done, column) for variant in known]
        rises = [smaller(a, b, column) for a, b in [*pairwise(known), (known[0], known[-1])]]
        *steps, ends = [None if up is None else up is not falls for up in rises]
        told.append(False if False in steps else ends)
        path = " → ".join(f"{value.value:z.3f}" for value in values)
        doses = f"{known[0].strength:g} to {known[-1].strength:g}"
        evidence.append(f"{name}, {doses}: {path}")
    if not told:
        return None
    text += (
        ": in every row no step goes the other way and the gap at the last strength lies "
        f"{'below' if falls else 'above'} the one at the first (95 % intervals of the differences)"
    )
    return Claim(text, all_told(told), _listed(told, evidence))


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
    told: list[bool | None] = []
    evidence = []
    for (less, one), (more, other) in pairwise(shares):
        if less == more:
            continue
        for first, second in _shared(found[one], found[other], CAPABILITY):
            a, b = gap(first.done, CAPABILITY), gap(second.done, CAPABILITY)
            told.append(smaller(first, second, CAPABILITY))
            evidence.append(
                f"λ = {first.strength:g}: {one} ({100 * less:z.0f} %) {a.value:z.3f} "
                f"{SIGNS[told[-1]]} {other} ({100 * more:z.0f} %) {b.value:z.3f}"
            )
    if not told:
        return Claim(text, None, "the tasks' overlaps are equal or not known")
    return Claim(text, all_told(told), _listed(told, evidence))


def _restrictive(every: Sequence[Place]) -> Claim | None:
    """Rule: each variant on Case II's front costs more than Case I's cheapest that is as safe."""
    text = (
        "Case II is more restrictive than Case I: each variant on Case II's front (penalty and "
        "ball) whose mean alignment gap lies between Case I's smallest and largest has a larger "
        "capability gap than the cheapest variant of Case I whose mean alignment gap is no larger "
        "(open where the 95 % interval of some difference contains 0)"
    )
    told: list[bool | None] = []
    evidence = []
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
            told.append(smaller(cheapest, variant, CAPABILITY))
            evidence.append(
                f"{_head(place, every)}{cheapest.name} {_pair(cheapest, a)} {SIGNS[told[-1]]} "
                f"{variant.name} {_pair(variant, b)}"
            )
    if not both:
        return None
    beyond = (
        f"variants of Case II beyond Case I's range: {outside['tighter']} safer than all of it, "
        f"{outside['looser']} less safe"
    )
    if not told:
        return Claim(text, None, beyond)
    return Claim(text, all_told(told), f"{_listed(told, evidence)}; {beyond}")


def _measured(variants: Sequence[ResultRow], *methods: str) -> list[ResultRow]:
    found = [variant for variant in variants if variant.method in methods and len(variant.done)]
    return [variant for variant in found if all(map(math.isfinite, _point(variant)))]


def _point(variant: ResultRow) -> tuple[float, float]:
    return variant.mean(CAPABILITY), variant.mean(ALIGNMENT)


def _pair(variant: ResultRow, capability: Gap) -> str:
    return f"{capability.value:z.3f} (alignment {variant.mean(ALIGNMENT):z.3f})"


def _shared(
    one: Sequence[ResultRow], other: Sequence[ResultRow], column: str
) -> list[tuple[ResultRow, ResultRow]]:
    """Variants of equal strength in which ``column`` was measured."""
    of = {variant.strength: variant for variant in other if not math.isnan(variant.mean(column))}
    known = [variant for variant in one if not math.isnan(variant.mean(column))]
    return [(variant, of[variant.strength]) for variant in known if variant.strength in of]


def _head(place: str, every: Sequence[Place]) -> str:
    return f"{place}, " if len(every) > 1 else ""


def _listed(told: Sequence[bool | None], evidence: Sequence[str]) -> str:
    """How many comparisons hold, fail and are open, then the first of them, those that fail and
    those that are open before those that hold."""
    counts = [sum(value is word for value in told) for word in (True, False, None)]
    head = f"{counts[0]} of {len(told)} hold, {counts[1]} fail, {counts[2]} are open"
    order = {False: 0, None: 1, True: 2}
    pairs = sorted(zip(told, evidence, strict=True), key=lambda pair: order[pair[0]])
    shown = [text for _, text in pairs[:MOST_SHOWN]]
    if rest := [told for told, _ in pairs[MOST_SHOWN:]]:
        how = "hold" if all(rest) else "hold, fail or are open, as counted"
        shown.append(f"{len(rest)} more that {how}")
    return "; ".join([head, *shown])
