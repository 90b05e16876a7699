"""Measures of continual fine-tuning, from accuracies after every stage; NumPy alone.

``r`` has a row for each stage and a column for each task, both in the order of training: row 0 is
the model before any fine-tuning, row i the one after stage i, which trained the task of column
i - 1. So ``r[i, j]`` is the CIB paper's R_{i,j+1}. Accuracies are fractions, and so are all
differences of them (times 100: points); nan where something was not measured. ``without`` are
columns that a mean leaves out: the paper leaves out Dolly, the first task, as one of generation.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from raycib.metrics import Rate

MEASURES = (
    "bt", "bt_all", "bwt", "bwt_all", "forward_transfer", "forgetting", "stability",
    "stability_first",
)  # fmt: skip
"""What ``continual_scores`` gives."""

Rates = Mapping[str, Rate | float | None]
"""An accuracy for each task."""


def continual_scores(
    order: Sequence[str],
    before: Rates | None,
    stages: Sequence[Rates | None],
    left_out: Collection[str] = (),
) -> dict[str, float | None]:
    """``MEASURES`` of one run as fractions; None where what a measure needs was not measured.

    ``order`` are its tasks as trained, ``before`` the accuracies before fine-tuning, ``stages``
    those after each stage. ``left_out`` are tasks that ``bt`` and ``bwt`` do without, wherever
    they stand in the order, so that orders can be compared; ``bt_all`` and ``bwt_all`` have every
    task. ``stability`` is that of the first task that is not left out, ``stability_first`` of the
    first one, ``forgetting`` the mean total forgetting of the tasks that others followed.
    """
    r = accuracy_matrix(order, before, stages)
    without = [place for place, task in enumerate(order) if task in left_out]
    watched = next(place for place in range(len(order) + 1) if place not in without)
    found = {
        "bt": final_accuracy(r, without),
        "bt_all": final_accuracy(r),
        "bwt": backward_transfer(r, without),
        "bwt_all": backward_transfer(r),
        "forward_transfer": forward_transfer(r),
        "forgetting": _mean(total_forgetting(r)[:-1]),
        "stability": stability(r, watched) if watched < len(order) else np.nan,
        "stability_first": stability(r, 0),
    }
    return {name: float(value) if np.isfinite(value) else None for name, value in found.items()}


def accuracy_matrix(
    order: Sequence[str], before: Rates | None, stages: Sequence[Rates | None]
) -> np.ndarray:
    """``r``, of shape (stages + 1, tasks)."""
    return np.array([[_value(row, task) for task in order] for row in (before, *stages)])


def final_accuracy(r: np.ndarray, without: Collection[int] = ()) -> float:
    """What the paper's Table 2 calls BT: the mean accuracy after the last stage."""
    return _mean(r[-1, _but(r, without)])


def backward_transfer(r: np.ndarray, without: Collection[int] = ()) -> float:
    """BWT (Eq. 26): the mean of R_{T,t} - R_{t,t} over the tasks but the last one trained.

    Negative: later stages cost accuracy. With the first task left out it is the paper's Figure 7.
    """
    kept = [task for task in _but(r, without) if task < r.shape[1] - 1]
    return _mean(r[-1, kept] - r[np.array(kept, dtype=int) + 1, kept])


def forward_transfer(r: np.ndarray) -> float:
    """The mean of R_{t-1,t} - R_{0,t} over the tasks but the first: what earlier stages taught of a
    task before its own."""
    later = np.arange(1, r.shape[1])
    return _mean(r[later, later] - r[0, later])


def forgetting(r: np.ndarray) -> np.ndarray:
    """R_{i,j} - R_{i+1,j} by transition from one stage to the next (row i - 1) and task (column j):
    positive where the next stage cost accuracy, as in the paper's Figure 5. nan where the task had
    not been trained yet."""
    lost = r[1:-1] - r[2:]
    trained = np.tri(*lost.shape, dtype=bool)
    return np.where(trained, lost, np.nan)


def total_forgetting(r: np.ndarray) -> np.ndarray:
    """By task, its best accuracy from its own stage to the last but one, less its final one; nan
    for the task trained last."""
    lost = [r[task + 1 : -1, task].max() - r[-1, task] for task in range(r.shape[1] - 1)]
    return np.array([*lost, np.nan])


def stability(r: np.ndarray, task: int) -> float:
    """POPULATION standard deviation (ddof = 0, which is the paper's) of a task's accuracy over the
    stages from its own on; nan where that is one stage alone. Lower is steadier."""
    mine = r[task + 1 :, task]
    return float(mine.std(ddof=0)) if len(mine) > 1 else np.nan


def _value(rates: Rates | None, task: str) -> float:
    rate = (rates or {}).get(task)
    value = rate.value if isinstance(rate, Rate) else rate
    return np.nan if value is None else float(value)


def _but(r: np.ndarray, without: Collection[int]) -> list[int]:
    return [task for task in range(r.shape[1]) if task not in without]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else np.nan
