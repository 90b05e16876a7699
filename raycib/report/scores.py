"""Scores as flat names and numbers, and which parameters a sweep varies; quick to import."""

from collections.abc import Iterable, Mapping
from typing import Any

from raycib.config.menu import menu
from raycib.metrics import ENDS
from raycib.results import Cell, Results, Scores

BEFORE = "before fine-tuning"
"""What the aligned model is called."""
RATE_PARTS = {"value": ""} | {part: f"_{part}" for part in ENDS}
WITHIN = {
    "utility_by_probe": "utility",
    "hrr_by_judge": "hrr_by",
    "hrr_on": "hrr_on",
    "benchmarks": "benchmark",
    "benchmark_details": "benchmark_detail",
    "accuracies": "accuracy",
}
"""Scores by name, and how the column of one begins."""
OF_ANSWERS = ("accuracy", "f1", "has_answer", "no_answer", "f1_has_answer")
"""Scores of answers to a task's held-out rows."""
OF_A_TASK = (
    *OF_ANSWERS, "eval_loss", "cosine", "negative_cosine", "num_negatives", "mutual_information",
    "mutual_information_last_prompt", "mutual_information_ceiling",
)  # fmt: skip
"""Scores on a task's held-out rows."""


def flat_scores(scores: Scores | None) -> dict[str, Any]:
    """Scores as flat columns: ``hrr``, ``hrr_low``, ``hrr_n``, ``utility_facts``,
    ``accuracy_gsm`` and so on; empty where there are none."""
    flat: dict[str, Any] = {}
    for name, value in (scores.plain() if scores else {}).items():
        if head := WITHIN.get(name):
            for part, rate in value.items():
                flat |= _flat(f"{head}_{part}", rate)
        else:
            flat |= _flat(name, value)
    return flat


def aligned_scores(results: Results) -> dict[str, Any]:
    """Flat scores of the model before fine-tuning, as ``before_all`` has them; empty where it was
    not measured."""
    return flat_scores(before_all(results))


def before_all(results: Results) -> Scores | None:
    """Scores of the model before fine-tuning that are held against every cell's; None where it was
    not measured.

    In a sweep of several tasks, each by itself, those on a task's held-out rows are left out: they
    are of the first task alone. Each cell has its own as ``..._before``. In a sequence of tasks
    answers are those to the first one, while a cell's are to its last: ``accuracies`` has them by
    task, and losses and representations are the first one's everywhere.
    """
    scores = results.aligned.scores
    if scores is None:
        return None
    several = len({cell.task for cell in results.cells}) > 1
    of_one = OF_ANSWERS if scores.accuracies else OF_A_TASK if several else ()
    return Scores.model_validate({n: v for n, v in scores.given().items() if n not in of_one})


def unaligned_scores(results: Results) -> dict[str, Any]:
    """Flat scores of the base, where it was aligned first; else empty."""
    return flat_scores(results.unaligned.scores if results.unaligned else None)


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {name + RATE_PARTS.get(part, f"_{part}"): v for part, v in value.items()}
    return {name: value}


def strength_name(cell: Cell) -> str:
    """What a cell's method calls its strength ("lam", "epsilon"); "" of plain LoRA, and of a method
    that is not known here."""
    method = menu().get(cell.method)
    return method.about.strength.partition(":")[0] if method and cell.method != "lora" else ""


def swept(cells: Iterable[Cell]) -> list[str]:
    """Parameters, besides strength and seed, that differ between cells of one method."""
    seen: dict[tuple[str, str], set[tuple[str, float]]] = {}
    for cell in cells:
        for name, value in cell.parameters.items():
            place = seen.setdefault((cell.method, name), set())
            place.add((repr(value), cell.strength))
    return sorted(
        {
            name
            for (_, name), pairs in seen.items()
            if len({value for value, _ in pairs}) > 1 and not _is_strength(pairs)
        }
    )


def _is_strength(pairs: set[tuple[str, float]]) -> bool:
    """Whether a parameter is the strength by another name: a constant more or less, or a constant
    less the strength."""
    try:
        numbers = [(float(value), strength) for value, strength in pairs]
    except ValueError:  # a word, a list, true or false
        return False
    apart = {round(value - strength, 9) for value, strength in numbers}
    together = {round(value + strength, 9) for value, strength in numbers}
    return len(apart) == 1 or len(together) == 1
