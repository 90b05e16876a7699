"""What a scorer says of answers."""

from typing import Any

from raycib.config import RowsSpec
from raycib.data.rows import Row
from raycib.evals.benchmark import Benchmark
from raycib.evals.scorers import NONE, SCORERS, scorer_of
from raycib.metrics import Rate


def spec_of(rows: list[Row], scorer: str | None = None) -> RowsSpec:
    return RowsSpec.model_validate(
        {"name": "rows", "source": "rows.jsonl", "rows": "", "num_rows": len(rows)}
        | {"scorer": scorer}
    )


def accuracy(spec: RowsSpec, rows: list[Row], said: list[str]) -> Rate | None:
    scorer = scorer_of(spec, rows)
    return None if scorer is NONE else Benchmark(rows, scorer, "accuracy").value(said)


def besides(spec: RowsSpec, rows: list[Row], said: list[str]) -> dict[str, Any]:
    more = scorer_of(spec, rows).besides
    return more(rows, said) if more else {}


def is_right(name: str, row: Row, answer: str) -> float | None:
    return SCORERS[name].score(row, answer)
