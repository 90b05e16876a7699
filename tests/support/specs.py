"""Specs of what is nowhere: plans read no file."""

from raycib.config import EvalSpec, ModelSpec, RowsSpec, TaskSpec

MODEL = ModelSpec(source="here", weights="w" * 64, tokenizer="t" * 64)
TASKS = [TaskSpec(name=f"task {n}", source="", rows=str(n) * 64, num_rows=100) for n in range(4)]
ROWS = RowsSpec(name="asked", source="", rows="a" * 64, num_rows=10)
EVALS = EvalSpec(harmful=ROWS, held_out=ROWS)
