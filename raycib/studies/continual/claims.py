"""What the CIB paper claims of continual fine-tuning, held against one sweep of orders.

Each rule is fixed here, before the data are seen, and stands in the claim's own words. Two methods
are held against each other run by run of one seed and order; a difference counts where Student's
95 % interval over seeds does not hold 0. With few seeds such intervals are wide, and with one there
is none: then a claim is open. Seeds that are alike are taken to differ by one answer, so that one
prompt in each of two seeds decides nothing. Intervals of several methods are not corrected for
being several.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from raycib.report.claims import Claim, all_told, coherent, erosion
from raycib.report.forms import NOT_MEASURED, in_points, p_equals, percent, share, spread
from raycib.report.frame import PLAIN, to_frame
from raycib.report.statistics import Interval, t_interval
from raycib.report.variants import CIB
from raycib.studies.continual.results import ContinualResults
from raycib.studies.continual.scores import forgetting
from raycib.studies.continual.sequences import (
    ARROW,
    Run,
    Sequences,
    above,
    by_seed,
    difference,
    one_answer,
    over_seeds,
    sequences_of,
    stages_frame,
)  # fmt: skip
from raycib.studies.continual.table import stage_names
from raycib.studies.continual.variance import NO_VARIANCE, ORDER, RESPONSES, analyse

MARGIN = 0.01
"""How far below the best BT still counts as competitive: one point."""
LEVEL = 0.05
"""Of the F tests: with a larger p an effect is left open."""
Variants = dict[str, list[Run]]


def order_claims(results: ContinualResults) -> list[Claim]:
    """The paper's claims on continual fine-tuning, the order's part in it, and what both rest on.
    What was not run makes no claim."""
    sequences, frame = sequences_of(results), to_frame(results)
    variants = sequences.variants
    lora = next((runs for runs in variants.values() if runs[0].cell.method == PLAIN), None)
    made: list[Claim | None] = [*erosion(frame, sequences.aligned)]
    made.append(_rises(sequences, lora) if lora else None)
    for variant, mine in variants.items():
        if mine[0].cell.method != CIB:
            continue
        others = {name: runs for name, runs in variants.items() if runs[0].cell.method != CIB}
        if others:
            made += [_safest(variant, mine, others), _competitive(sequences, variant, mine, others)]
            made.append(_steadiest(sequences, variant, mine, others))
        if lora:
            made += [_backward(sequences, variant, mine, lora, name) for name in ("bwt", "bwt_all")]
    made.append(_first(sequences, variants))
    made += [_order(sequences, measure) for measure in RESPONSES]
    made += coherent(stages_frame(results), "stage")
    return [claim for claim in made if claim]


def _rises(sequences: Sequences, lora: Sequence[Run]) -> Claim | None:
    """Rule: plain LoRA's HRR after the last stage less that after the first lies above 0."""
    last = len(lora[0].order) - 1
    if last < 1:
        return None
    text = (
        "Plain LoRA's harmful response rate rises along the sequence: after the last stage it is "
        "above the one after the first (interval over seeds of the difference above 0)"
    )
    rise = _alone(lora, lambda run: run.after(last, "hrr") - run.after(0, "hrr"), "hrr")
    path = [f"{share(over_seeds(lora, lambda r, i=i: r.after(i, 'hrr')).mean)} after {name}"
            for i, name in enumerate(stage_names(sequences))]  # fmt: skip
    before = sequences.aligned.get("hrr")
    start = f"{share(before)} before, " if before is not None else ""
    return Claim(text, above(rise), f"{start}{', '.join(path)}; {_said(rise)}")


def _safest(variant: str, mine: Sequence[Run], others: Variants) -> Claim:
    """Rule: CIB's final HRR less that of each other method lies below 0."""
    text = (
        f"{variant} has the lowest harmful response rate after the last stage (Table 2): below "
        "every other method's, interval over seeds of each paired difference below 0"
    )
    return _below(text, variant, mine, others, "hrr")


def _competitive(
    sequences: Sequences, variant: str, mine: Sequence[Run], others: Variants
) -> Claim | None:
    """Rule: CIB's BT less that of the method of highest mean BT lies above minus one point."""
    means = {name: over_seeds(runs, "bt").mean for name, runs in others.items()}
    known = {name: mean for name, mean in means.items() if math.isfinite(mean)}
    if not known:
        return None
    best = max(known, key=lambda name: known[name])
    text = (
        f"{variant}'s final accuracy (BT, without {sequences.left_out}) is competitive: at most "
        "one point below the best other method's mean, interval over seeds of the paired "
        "difference above -1 point"
    )
    apart = difference(mine, others[best], "bt")
    evidence = f"{_mean(variant, mine, 'bt')}, {_mean(best, others[best], 'bt')}; {_said(apart)}"
    return Claim(text, above(apart, -MARGIN), evidence)


def _steadiest(
    sequences: Sequences, variant: str, mine: Sequence[Run], others: Variants
) -> Claim | None:
    """Rule: CIB's stability on the first task that BT counts less each other's lies below 0."""
    if not math.isfinite(over_seeds(mine, "stability").mean):
        return None
    watched = {next((t for t in run.order if t != sequences.left_out), "") for run in mine}
    task = watched.pop() if len(watched) == 1 else "the first task that BT counts"
    text = (
        f"{variant} is the most stable on {task} (Figure 6): the population standard deviation of "
        "its accuracy from its own stage on is below every other method's, interval over seeds of "
        "each paired difference below 0"
    )
    return _below(text, variant, mine, others, "stability")


def _backward(
    sequences: Sequences, variant: str, mine: Sequence[Run], lora: Sequence[Run], name: str
) -> Claim | None:
    """Rule: CIB's BWT less plain LoRA's lies above 0."""
    if not math.isfinite(over_seeds(mine, name).mean):
        return None
    paper = name == "bwt"
    which = f"without {sequences.left_out}, Figure 7" if paper else f"{sequences.left_out} included"
    text = (
        f"{variant} forgets less than plain LoRA: its backward transfer (BWT, {which}) is the "
        "higher one, interval over seeds of the paired difference above 0"
    )
    apart = difference(mine, lora, name)
    evidence = f"{_mean(variant, mine, name)}, {_mean(lora[0].variant, lora, name)}; {_said(apart)}"
    return Claim(text, above(apart), evidence)


def _first(sequences: Sequences, variants: Variants) -> Claim | None:
    """Rule, for every method: in a run, the most that the first task lost at one transition less
    the most that any other task lost at one lies above 0."""
    variants = {variant: runs for variant, runs in variants.items() if len(runs[0].order) > 2}
    if not variants:
        return None
    text = (
        "The first task of a sequence is forgotten most: in every method its largest loss at one "
        "transition is above the largest of any other task, interval over seeds of the difference "
        "above 0 (open where some interval holds 0)"
    )
    told, evidence = [], []
    for variant, runs in variants.items():
        apart = _alone(runs, _first_less_rest, "accuracy")
        told.append(above(apart))
        evidence.append(f"{variant}: {_worst(sequences, runs)}; first less others {_said(apart)}")
    return Claim(text, all_told(told), ". ".join(evidence))


def _order(sequences: Sequences, measure: str) -> Claim | None:
    """Rule: the order's F test has p < 5 %; open otherwise, for no proof is no disproof."""
    found = analyse(sequences, measure)
    if found is None:
        return None
    order = found.source(ORDER)
    text = (
        f"The order of the tasks changes the {RESPONSES[measure]} (analysis of variance, order's "
        f"p < {LEVEL:g}; open otherwise)"
    )
    if math.isnan(order.share):
        return Claim(text, None, f"{NO_VARIANCE}: all {found.runs} runs gave one number")
    shares = ", ".join(f"{s.name.replace(' x ', ' × ')} {share(s.share)}" for s in found.sources)
    test = f"F = {order.f:z.1f}, {p_equals(order.p)}" if math.isfinite(order.p) else "no test"
    evidence = f"shares of the variance: {shares}; order: {test} ({found.runs} runs)"
    return Claim(text, True if order.p < LEVEL else None, evidence)


def _below(text: str, variant: str, mine: Sequence[Run], others: Variants, measure: str) -> Claim:
    """One variant below each of the others in ``measure``."""
    told, evidence = [], [_mean(variant, mine, measure)]
    for name, runs in others.items():
        apart = difference(mine, runs, measure)
        found = above(apart)
        told.append(None if found is None else not found)
        evidence.append(f"less {name} {_said(apart)}")
    return Claim(text, all_told(told), "; ".join(evidence))


def _alone(runs: Sequence[Run], measure: Callable[[Run], float], of: str) -> Interval:
    """A measure of runs, which is a difference `of` one of their scores, averaged over the orders
    of a seed, with its interval over seeds."""
    # Scores are fractions.
    return t_interval(by_seed(runs, measure).values(), 1.0, one_answer(runs, of))


def _first_less_rest(run: Run) -> float:
    lost = forgetting(run.matrix)
    # Of later tasks the entries before their own stage are nan; where others are, so is the claim.
    rest = np.array([lost[i, j] for j in range(1, len(lost)) for i in range(j, len(lost))])
    return float(lost[:, 0].max() - rest.max())


def _worst(sequences: Sequences, runs: Sequence[Run]) -> str:
    """The transition at which the first task lost most, in the mean over the runs of one order."""
    order = sequences.main.orders[0]
    mine = [forgetting(run.matrix)[:, 0] for run in runs if run.order == order]
    if not mine or not np.isfinite(np.mean(mine, axis=0)).any():
        return "not measured"
    lost = np.mean(mine, axis=0)
    place = int(np.nanargmax(lost))
    step = f"{order[place]}{ARROW}{order[place + 1]}"
    return f"{order[0]} lost most at {step} ({100 * lost[place]:z.1f} points)"


def _mean(variant: str, runs: Sequence[Run], measure: str) -> str:
    found = over_seeds(runs, measure)
    if found.n and measure in ("bwt", "bwt_all"):
        return f"{variant} {in_points(found.mean, found.std)} points"
    if found.n and measure == "stability":
        return f"{variant} {spread(found.mean, found.std, 100, 1)} points"
    return f"{variant} {percent(found.mean, found.std)}"


def _said(found: Interval) -> str:
    """A difference in points with its interval and the seeds behind it."""
    if not found.n:
        return NOT_MEASURED
    middle = in_points(found.value)
    if found.n == 1:
        return f"{middle} points (one seed: no interval)"
    ends = f"[{in_points(found.low)}, {in_points(found.high)}]"
    alike = ", alike: taken to be one answer apart" * found.alike
    return f"{middle} {ends} points over {found.n} seeds{alike}"
