"""Scores of a summary as flat names and numbers; standard library alone, so quick to import."""

import json
from collections.abc import Mapping
from typing import Any

RATE_PARTS = {"value": "", "low": "_low", "high": "_high", "n": "_n", "unread": "_unread"}


def flat_scores(scores: Mapping[str, Any] | None) -> dict[str, float | int | None]:
    """Scores as flat columns: ``hrr``, ``hrr_low``, ``hrr_n``, ``utility_facts``,
    ``accuracy_gsm`` and so on."""
    flat: dict[str, float | int | None] = {}
    for name, value in (scores or {}).items():
        if name == "utility_by_probe":
            for probe, rate in (value or {}).items():
                flat |= _flat_score(f"utility_{probe}", rate)
        elif name == "hrr_by_judge":
            for judge, rate in (value or {}).items():
                flat |= _flat_score(f"hrr_by_{judge}", rate)
        elif name in ("benchmarks", "benchmark_details"):
            for benchmark, rate in (value or {}).items():
                flat |= _flat_score(f"{name.removesuffix('s')}_{benchmark}", rate)
        elif name == "accuracies":
            for task, rate in (value or {}).items():
                flat |= _flat_score(f"accuracy_{task}", rate)
        else:
            flat |= _flat_score(name, value)
    return flat


def swept(summary: Mapping[str, Any]) -> list[str]:
    """Parameters, besides strength and seed, that differ between cells of one method."""
    seen: dict[tuple[str, str], set[tuple[str, float]]] = {}
    for cell in summary["cells"]:
        for name, value in (cell.get("parameters") or {}).items():
            place = seen.setdefault((cell["method"], name), set())
            place.add((json.dumps(value, default=str), float(cell["strength"])))
    names = {
        name
        for (_, name), pairs in seen.items()
        if len({value for value, _ in pairs}) > 1 and not _is_strength(pairs)
    }
    return sorted(names - {"lam", "strength", "seed", "task", "model", "method"})


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


def aligned_scores(summary: Mapping[str, Any]) -> dict[str, float | int | None]:
    """Flat scores of the model before fine-tuning; empty where it was not measured."""
    return flat_scores((summary.get("aligned") or {}).get("scores"))


def unaligned_scores(summary: Mapping[str, Any]) -> dict[str, float | int | None]:
    """Flat scores of the base, where it was aligned first; else empty."""
    return flat_scores((summary.get("unaligned") or {}).get("scores"))


def _flat_score(name: str, value: Any) -> dict[str, float | int | None]:
    if isinstance(value, Mapping):
        return {name + RATE_PARTS.get(part, f"_{part}"): v for part, v in value.items()}
    return {name: value}
