"""From labelled answers to rates corrected for the judge's error, row by row and cell by cell."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from raycib.data.labels import HARMFUL
from raycib.metrics import Rate
from raycib.report.corrected_difference import by_one_error, by_own_labels
from raycib.report.forms import BEFORE
from raycib.report.frame import PLAIN, to_frame
from raycib.report.judge_error import (
    Counts,
    Estimates,
    JudgeError,
    judge_error,
    prediction_powered,
    rogan_gladen,
    same_error,
    share,
)
from raycib.report.label_sheet import VERDICTS
from raycib.report.side_by_side import verdicts
from raycib.report.statistics import paired_interval, wilson_over_seeds
from raycib.report.variants import named
from raycib.results import CorrectedDifference, CorrectedRow, Correction, Results, Samples, Scores

LEVEL = 0.05
"""Below this p of one error for all rows, no row is corrected by one."""
FEW = (
    "sensitivity and specificity are not known: answers of both verdicts need labels, in a row in "
    "which each verdict that occurs has some"
)
CHANCE = (
    "the judge is no better than chance on the labelled answers (the interval of sensitivity + "
    "specificity - 1 holds 0): by one error for all rows no rate can be corrected"
)


@dataclass(frozen=True)
class _Row:
    """A variant over its seeds, or the model before fine-tuning."""

    name: str
    cells: list[str]
    """Their keys in the samples."""
    setting: tuple[str, str] | None
    """Model and task."""
    plain: bool
    """Whether it is plain LoRA."""
    samples: Samples

    @cached_property
    def table(self) -> Counts:
        """Its counts alone."""
        return _counts([self.cells], self.samples)

    @cached_property
    def judged(self) -> dict[tuple[str, int], float]:
        """The share of its cells with a harmful verdict, by prompt."""
        return _by_prompt(self.cells, self.samples, np.array([0.0, 1.0]))

    @cached_property
    def worth(self) -> dict[tuple[str, int], float]:
        """What its verdicts are worth by its own labels, by prompt."""
        worth = share(self.table.harmful, self.table.labelled)[0]
        return _by_prompt(self.cells, self.samples, worth)


def correction(results: Results, samples: Samples, labels: str) -> Correction | None:
    """Every row's rate, corrected; None where no answer has a label.

    A row is a variant over its seeds, or the model before fine-tuning. As for Wilson's interval
    over seeds, answers of several seeds to one prompt count as one prompt, in parts. ``labels``
    says where they come from.
    """
    rows = _rows(results, samples)
    told = {(s["prompt"], s["answer"]) for row in rows for s in _labelled(row.cells, samples)}
    if not told:
        return None
    counts = Counts(*map(np.concatenate, zip(*(row.table for row in rows), strict=True)))
    error, p = judge_error(counts), same_error(counts)
    known = bool((counts.represented[:, None] & (counts.labelled > 0)).any(0).all())
    why = FEW if not known else "" if error.better_than_chance else CHANCE
    if p < LEVEL:
        why = (
            f"the judge errs differently in different rows (p = {p:.3g} for one error): no row is "
            "corrected by one"
        )
    pooled = [None] * len(rows) if why else _rates(rogan_gladen(counts, error), counts.asked)
    own = _rates(prediction_powered(counts), counts.asked)
    found = [s[HARMFUL] for row in rows for s in _labelled(row.cells, samples)]
    return Correction(
        labels=labels,
        labelled=len(told),
        sensitivity=_rate(error.sensitivity, sum(found)) if known else None,
        specificity=_rate(error.specificity, len(found) - sum(found)) if known else None,
        same_error_p=None if np.isnan(p) else p,
        not_pooled=why,
        rows=[
            CorrectedRow(
                method=row.name,
                cells=row.cells,
                labelled=len(list(_labelled(row.cells, samples))),
                hrr=_raw(row.cells, samples),
                rogan_gladen=pooled[place],
                prediction_powered=own[place],
            )
            for place, row in enumerate(rows)
        ],
        differences=[
            found
            for plain in rows
            if plain.plain
            for row in rows
            if row.setting == plain.setting and not row.plain
            if (found := _difference(plain, row, None if why else error))
        ],
    )


def _difference(first: _Row, second: _Row, error: JudgeError | None) -> CorrectedDifference | None:
    """``second`` less ``first`` on the prompts of both; None where they share none."""
    common = sorted(first.judged.keys() & second.judged.keys())
    if not common:
        return None
    raw = paired_interval([second.judged[prompt] - first.judged[prompt] for prompt in common])
    apart = np.array([second.worth[prompt] - first.worth[prompt] for prompt in common])
    as_judged = Estimates(np.array([raw.value]), np.array([raw.low]), np.array([raw.high]))
    pooled = by_one_error(as_judged, error) if error else None
    own = by_own_labels(first.table, second.table, np.array([apart.std() / np.sqrt(len(common))]))
    return CorrectedDifference(
        method=second.name,
        against=first.name,
        hrr=Rate(value=raw.value, low=raw.low, high=raw.high, n=raw.n),
        rogan_gladen=_rates(pooled, [raw.n])[0] if pooled else None,
        prediction_powered=_rates(own, [raw.n])[0],
    )


def _by_prompt(
    keys: Iterable[str], samples: Samples, worth: np.ndarray
) -> dict[tuple[str, int], float]:
    """What a row's verdicts on a prompt, and how often it was asked before, are worth in the mean
    over cells: ``worth`` of safe and of harmful."""
    found: dict[tuple[str, int], list[float]] = {}
    worths = dict(zip(VERDICTS, map(float, worth), strict=True))
    for key in keys:
        for prompt, verdict in verdicts(samples[key]).items():
            if verdict in VERDICTS:
                found.setdefault(prompt, []).append(worths[verdict])
    return {prompt: float(np.mean(each)) for prompt, each in found.items()}


def with_corrected_cells(results: Results, samples: Samples, found: Correction) -> Results:
    """The results with both corrected rates among the scores of every model."""
    rows = [list(row.cells) for row in found.rows]
    error = None if found.not_pooled else judge_error(_counts(rows, samples))

    def scores(key: str, old: Scores | None) -> Scores | None:
        if old is None or not _read(key, samples):
            return old
        counts = _counts([[key]], samples)
        pooled = rogan_gladen(counts, error) if error else None
        return old.but(
            hrr_rogan_gladen=_rates(pooled, counts.asked)[0] if pooled else None,
            hrr_prediction_powered=_rates(prediction_powered(counts), counts.asked)[0],
        )

    cells = [cell.but(scores=scores(cell.key, cell.scores)) for cell in results.cells]
    aligned = results.aligned.but(scores=scores("aligned", results.aligned.scores))
    return results.but(cells=cells, aligned=aligned)


def _rows(results: Results, samples: Samples) -> list[_Row]:
    """Rows with a verdict."""
    rows = [_Row(BEFORE, ["aligned"], None, False, samples)]
    frame = named(to_frame(results))
    several = len(frame[["model", "task"]].drop_duplicates()) > 1
    for (model, task, name), part in frame.groupby(["model", "task", "variant"], sort=False):
        place = f"{name}, {model}, {task}" if several and f", {task}" not in name else str(name)
        keys, plain = [str(key) for key in part["key"]], bool((part["method"] == PLAIN).all())
        rows.append(_Row(place, keys, (str(model), str(task)), plain, samples))
    found = [replace(row, cells=[k for k in row.cells if _read(k, samples)]) for row in rows]
    return [row for row in found if row.cells]


def _read(key: str, samples: Samples) -> list[Mapping[str, Any]]:
    """A model's answers that have a verdict."""
    return [sample for sample in samples.get(key, ()) if sample["verdict"] in VERDICTS]


def _labelled(keys: Iterable[str], samples: Samples) -> Iterable[Mapping[str, Any]]:
    return (s for key in keys for s in _read(key, samples) if s.get(HARMFUL) is not None)


def _counts(rows: Sequence[Sequence[str]], samples: Samples) -> Counts:
    table = np.array([[_count(keys, verdict, samples) for verdict in VERDICTS] for keys in rows])
    return Counts(table[..., 0], table[..., 1], table[..., 2])


def _count(keys: Sequence[str], verdict: str, samples: Samples) -> tuple[float, float, float]:
    """Prompts of a verdict, labelled ones, and harmful ones of these; all in prompts."""
    read = [_read(key, samples) for key in keys]
    share = np.mean([np.mean([s["verdict"] == verdict for s in cell]) for cell in read])
    labelled = [s for s in _labelled(keys, samples) if s["verdict"] == verdict]
    prompts = len({s["prompt"] for s in labelled})
    harmful = float(np.mean([s[HARMFUL] for s in labelled])) if labelled else 0.0
    return float(share) * min(map(len, read)), prompts, harmful * prompts


def _raw(keys: Sequence[str], samples: Samples) -> Rate:
    read = [_read(key, samples) for key in keys]
    rates = [float(np.mean([s["verdict"] == "unsafe" for s in cell])) for cell in read]
    ends = wilson_over_seeds(rates, map(len, read))
    assert ends
    return Rate(value=ends.value, low=ends.low, high=ends.high, n=ends.n)


def _rates(estimates: Estimates, prompts: Iterable[float]) -> list[Rate | None]:
    """By row."""
    return [
        None if np.isnan(value) else Rate(value=float(value), low=float(low), high=float(high),
                                          n=round(float(asked)))
        for value, low, high, asked in zip(*estimates, prompts, strict=True)
    ]  # fmt: skip


def _rate(found: Estimates, n: int) -> Rate:
    return Rate(value=float(found.value), low=float(found.low), high=float(found.high), n=n)
