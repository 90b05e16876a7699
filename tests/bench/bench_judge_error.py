"""How often the interval of a corrected harmful response rate has the true rate in it.

    python tests/bench/bench_judge_error.py [RUNS ...] [--tables 60] [--labels 15 40] [--guards]

Cells are those of the world whose answers stand in the stores RUNS (folders of sweeps that were
run), or made-up ones without any. Each is asked other prompts again and again, drawn from its own
with replacement: then its stored rate, which the world's exact rule knows, is the truth. Judges err
at random, or are rules and guards with ways of their own (``--guards``: the world's guard with
noise in its weights, some minutes). Labels are drawn as a sheet draws them. Counted is every cell
of every table; the interval of the share is over tables, whose cells share labels.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import replays

from raycib import world
from raycib.report.judge_error import (
    Counts,
    Estimates,
    judge_error,
    prediction_powered,
    rogan_gladen,
    same_error,
)
from raycib.store import Store
from raycib.store.kinds import GENERATIONS

RATES = (0.0, 0.0, 0.01, 0.02, 0.05, 0.1, 0.16, 0.23, 0.35, 0.5, 0.72, 0.85)
"""Of made-up cells."""
ROWS = 12
"""Cells of a table, which share labels."""
AT_RANDOM = {
    "se .98, sp .99": (0.98, 0.99),
    "se .95, sp .95": (0.95, 0.95),
    "se .90, sp .90": (0.90, 0.90),
    "se .75, sp .95": (0.75, 0.95),
    "se .90, sp .75": (0.90, 0.75),
    "se .60, sp .60": (0.60, 0.60),
}
NOISE = (0.0, 0.6, 0.9)
"""Standard deviation of the noise in a guard's weights, as a share of that of each matrix."""


def stored(folders: list[str]) -> list[list[tuple[str, str]]]:
    """(prompt, answer) of every model that answered the world's harmful prompts, each once."""
    prompts = [row["prompt"] for row in world.rows("harmful.test")]
    found: dict[str, list[tuple[str, str]]] = {}
    for folder in folders:
        for record in Store(folder).records(GENERATIONS):
            if record.about["rows"]["source"] == "world:harmful.test":
                answers = json.loads(record.path("answers.json").read_text())
                texts = [entry["text"] for entry in answers]
                found[record.about["subject"]] = list(zip(prompts, texts, strict=True))
    return list(found.values())


def by_guards(cells: list[list[tuple[str, str]]]) -> dict[str, np.ndarray]:
    """What the world's guard says, as it is shipped and with noise in its weights."""
    import torch

    from raycib.world.check import load, verdicts

    pairs = list(dict.fromkeys(pair for cell in cells for pair in cell))
    found = {}
    for noise in NOISE:
        guard, _ = both = load(world.folder("guard"))
        torch.manual_seed(0)
        with torch.no_grad():
            for weights in guard.parameters():
                if weights.ndim > 1:
                    weights += noise * weights.std() * torch.randn_like(weights)
        said = dict(zip(pairs, verdicts(both, pairs), strict=True))
        unsafe = [[said[pair].startswith("unsafe") for pair in cell] for cell in cells]
        found[f"guard, noise {noise:g}"] = np.array(unsafe)
    return found


def normal(harmful: np.ndarray, verdict: np.ndarray, labelled: np.ndarray) -> Estimates:
    """PPI++ as published: its tuned lambda and its normal interval (Angelopoulos et al. 2023)."""
    n, others = labelled.sum(-1), (~labelled).sum(-1)
    of_label, of_verdict = ((x & labelled).sum(-1) / n for x in (harmful, verdict))
    rest, rate = (verdict & ~labelled).sum(-1) / others, verdict.mean(-1)
    both = (harmful & verdict & labelled).sum(-1) / n - of_label * of_verdict
    varies = np.maximum(rate * (1 - rate), 1e-12)
    lam = np.clip(both / ((1 + n / others) * varies), 0, 1)
    value = lam * rest + of_label - lam * of_verdict
    off = np.where(labelled, harmful - lam[..., None] * verdict, np.nan)
    half = np.sqrt(lam**2 * rest * (1 - rest) / others + np.nanvar(off, axis=-1) / n)
    half = norm.ppf(0.975) * half
    return Estimates(value, value - half, value + half)


def as_judged(counts: Counts) -> Estimates:
    """The judge's rate with Wilson's interval."""
    z, n, rate = norm.ppf(0.975), counts.asked, counts.rate
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + (z / (2 * n)) ** 2)
    return Estimates(rate, np.where(rate == 0, 0, middle - half), middle + half)


def lang_reiczigel(counts: Counts) -> Estimates:
    """Lang and Reiczigel's interval (2014), with sensitivity and specificity as weighted shares of
    the labels, which count as many as Kish says."""
    weights = np.where(counts.labelled > 0, counts.judged / np.maximum(counts.labelled, 1), 0)
    harmless = counts.labelled - counts.harmful

    def share(hits: np.ndarray, all_: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        whole = (weights * all_).sum((-1, -2))
        size = whole**2 / np.maximum((weights**2 * all_).sum((-1, -2)), 1e-12)
        return ((weights * hits).sum((-1, -2)) / whole)[..., None], size[..., None]

    one = np.array([1.0, 0.0])
    specificity, of_safe = share(harmless * one, harmless)
    sensitivity, of_harmful = share(counts.harmful * one[::-1], counts.harmful)
    z, n = norm.ppf(0.975), counts.asked
    rate = (counts.judged[..., 1] + z * z / 2) / (n + z * z)
    se, sp = (
        (of_harmful * sensitivity + 1) / (of_harmful + 2),
        (of_safe * specificity + 1) / (of_safe + 2),
    )
    value = np.clip((rate + sp - 1) / (se + sp - 1), 0, 1)
    miss, alarm = se * (1 - se) / (of_harmful + 2), sp * (1 - sp) / (of_safe + 2)
    middle = value + 2 * z * z * (value * miss - (1 - value) * alarm)
    spread = rate * (1 - rate) / (n + z * z) + value**2 * miss + (1 - value) ** 2 * alarm
    half = z * np.sqrt(spread) / (se + sp - 1)
    return Estimates(value, np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1))


def said(found: Estimates, truth: np.ndarray) -> str:
    """Coverage with its interval over tables, mean width, coverage where the rate is neither 0 nor
    1 (an interval that begins at 0 misses 0 on no side), and how much was not corrected."""
    inside = replays.covered(found, truth)
    there = np.isfinite(inside)
    if not there.any():
        return "none corrected"
    tables = [np.nanmean(table) for table in inside if np.isfinite(table).any()]
    half = 1.96 * np.std(tables) / np.sqrt(len(tables))
    width = np.nanmean(np.where(there, found.high - found.low, np.nan))
    text = f"{100 * np.nanmean(inside):5.1f} ± {100 * half:.1f}  width {100 * width:4.1f}"
    text += f"  {100 * np.nanmean(inside[(truth > 0) & (truth < 1)]):5.1f} between 0 and 1"
    return text + f"  ({100 * (1 - there.mean()):.0f} % not corrected)" * bool((~there).any())


def main() -> None:
    """Print a line for each judge, number of labels and kind of interval."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("runs", nargs="*")
    options.add_argument("--tables", type=int, default=60)
    options.add_argument("--labels", type=int, nargs="+", default=[15, 40])
    options.add_argument("--guards", action="store_true")
    asked = options.parse_args()
    cells = stored(asked.runs)
    whole = replays.told(cells) if cells else replays.world_cells(RATES)
    own = {"harmful unless it refuses": whole.not_refused}
    own |= by_guards(cells) if asked.guards and cells else {}
    at_edge = ((whole.truth == 0) | (whole.truth == 1)).mean()
    print(f"{len(whole.truth)} cells, {100 * at_edge:.0f} % with a rate of 0 or 1")
    for name in [*AT_RANDOM, *own]:
        for labels in asked.labels:
            rng = np.random.default_rng(0)
            chosen = np.array(
                [rng.permutation(len(whole.truth))[:ROWS] for _ in range(asked.tables)]
            )
            verdicts = own.get(name, whole.not_refused)
            place = rng.integers(0, whole.harmful.shape[1], (*chosen.shape, 260))
            harmful, verdict = (
                np.take_along_axis(x[chosen], place, -1) for x in (whole.harmful, verdicts)
            )
            if name in AT_RANDOM:
                verdict = replays.flipped(harmful, *AT_RANDOM[name], rng)
            labelled, truth = replays.sampled(verdict, labels, rng), whole.truth[chosen]
            table = replays.counted(harmful, verdict, labelled)
            ps = [same_error(Counts(*(part[i] for part in table))) for i in range(asked.tables)]
            se, sp = verdict[harmful].mean(), 1 - verdict[~harmful].mean()
            several = np.mean(np.array(ps) < 0.05)
            print(
                f"{name}: sensitivity {se:.3f}, specificity {sp:.3f}; {labels} labels a cell, "
                f"{chosen.size} cells; several errors told in {100 * several:.0f} % of tables"
            )
            kinds = {
                "as judged, Wilson": as_judged(table),
                "one error for all": rogan_gladen(table, judge_error(table)),
                "own labels": prediction_powered(table),
                "PPI++, normal": normal(harmful, verdict, labelled),
                "Lang and Reiczigel": lang_reiczigel(table),
            }
            for kind, found in kinds.items():
                print(f"    {kind:20}{said(found, truth)}", flush=True)


if __name__ == "__main__":
    main()
