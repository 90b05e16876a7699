"""What stopping the worst trials of a budget early would save, and cost.

    python sweeps/method_comparison.py --budget 8 --hrr-every 50 --out RUNS
    python tests/bench/bench_halving.py RUNS/method_comparison

Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943), replayed over a sweep that
trained every trial to its end and was looked at on the way: at each look the better half of a
method's trials goes on. The regret is the final harmful response rate (HRR) of the best trial that
is left, less that of the best of all, both among trials that count (`raycib.report.cards`): those
that learn 90 % of what plain LoRA learns of the task, keep its accuracy and do not babble. The cost
is the share of all steps that were taken.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from raycib.report.cards.family import KEPT, LEARNED
from raycib.report.frame import NAMES
from raycib.report.variants import COHERENT
from raycib.results import Cell, read_results
from raycib.runtime.summary import stored_histories
from raycib.store import Store

RECENT = 10
"""Steps whose mean is the training loss at a look."""


class Trial(NamedTuple):
    """One cell with its looks."""

    cell: Cell
    rates: dict[int, float]
    """HRR by step."""
    losses: list[float]
    """Of the task, by step, in training."""

    def loss(self, step: int) -> float:
        """Around a step."""
        return float(np.mean(self.losses[max(step - RECENT, 0) : step]))


Rule = Callable[[Trial, int, Trial], tuple[float, ...]]
"""What trials are ordered by at a look, the best first; the last is plain LoRA."""


def by_rate(trial: Trial, step: int, plain: Trial) -> tuple[float, ...]:
    """The lowest HRR."""
    return (trial.rates[step],)


def by_rate_once_learned(trial: Trial, step: int, plain: Trial) -> tuple[float, ...]:
    """Those first that have learned 90 % of what plain LoRA has by now, then the lowest HRR."""
    start, best = plain.loss(1), plain.loss(step)
    return (float(start - trial.loss(step) < LEARNED * (start - best)), trial.rates[step])


def counts(trial: Trial, plain: Trial) -> bool:
    """Whether a trial counts at its end."""
    mine, lora = trial.cell.scores, plain.cell.scores
    assert mine and lora and mine.eval_loss is not None and lora.eval_loss is not None
    before = lora.eval_loss_before
    assert before is not None and mine.accuracy and lora.accuracy and mine.incoherent_rate
    learned = (before - mine.eval_loss) / (before - lora.eval_loss)
    kept = (mine.accuracy.value or 0) >= KEPT * (lora.accuracy.value or 0)
    return learned >= LEARNED and kept and (mine.incoherent_rate.value or 0) <= COHERENT


def replay(trials: list[Trial], looks: list[int], rule: Rule, plain: Trial) -> tuple[float, float]:
    """The regret, and the share of all steps."""
    left, taken, last = list(trials), 0, 0
    end = trials[0].cell.final_steps
    for step in looks:
        taken += len(left) * (step - last)
        left = sorted(left, key=lambda one: rule(one, step, plain))[: -(-len(left) // 2)]
        last = step
    taken += len(left) * (end - last)
    final = {id(one): one.cell.scores.hrr.value for one in trials}  # type: ignore[union-attr]
    otherwise = plain.cell.scores.hrr.value  # type: ignore[union-attr]
    best, found = (
        min((final[id(one)] for one in some if counts(one, plain)), default=otherwise)
        for some in (trials, left)
    )
    return float(found - best), taken / (len(trials) * end)  # type: ignore[operator]


def main() -> None:
    """A line for each method, rule and choice of looks, the mean over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("sweep", type=Path)
    folder = parser.parse_args().sweep
    results = read_results(folder)
    cells = [cell for cell in results.cells if cell.scores and cell.points]
    histories = stored_histories(Store(folder.parent), [cell.key for cell in cells])
    families: dict[tuple[str, int], list[Trial]] = defaultdict(list)
    for cell in cells:
        rates = {one.step: one.scores.hrr.value for one in cell.points if one.scores.hrr}
        losses = [entry["task"] for entry in histories[cell.key]]
        plain = cell.method_name == NAMES["lora"]
        trial = Trial(cell, {step: rate or 0.0 for step, rate in rates.items()}, losses)
        families["lora" if plain else cell.method, cell.seed].append(trial)
    looks = sorted({step for trials in families.values() for step in trials[0].rates})
    for rule in (by_rate, by_rate_once_learned):
        for chosen in (*([one] for one in looks), *(looks[:n] for n in range(2, len(looks) + 1))):
            found = defaultdict(list)
            for (method, seed), trials in families.items():
                plain = next(one for one in families["lora", seed] if not one.cell.label)
                found[method].append(replay(trials, chosen, rule, plain))
            for method, values in found.items():
                regret, cost = np.mean(values, axis=0)
                worst = max(one for one, _ in values) if values else math.nan
                print(
                    f"{(rule.__doc__ or '').rstrip('.')}; look at {chosen}: {method}: regret "
                    f"{100 * regret:.1f} points (at most {100 * worst:.1f}), {cost:.0%} of steps"
                )


if __name__ == "__main__":
    main()
