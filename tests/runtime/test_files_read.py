"""A sweep says what was done to its files."""

import json
from pathlib import Path

from raycib.config import EvalSpec, ModelSpec, PlainLoRA, RunSpec, StageSpec
from raycib.data.rows import describe_rows, describe_task
from raycib.methods.case1 import Case1
from raycib.report.measured import measured
from raycib.results import Results
from raycib.runtime.files import files_read, lines


def test_every_file_of_a_sweep_is_told_once(tmp_path: Path):
    def save(name: str) -> str:
        rows = [{"goal": f"{name} {n}", "answer": "x", "id": n} for n in range(20)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
        return str(tmp_path / f"{name}.json")

    task, safety = (describe_task(name, save(name), 64) for name in ("task", "safety data"))
    world = describe_rows("benign", "world:benign.test", 64, 8)
    harmful = describe_rows("harmful", save("harmful") + "#first-3", 64, 8)
    evals = EvalSpec(harmful=harmful, benign=world, held_out=harmful)
    model = ModelSpec(source="m", weights="w" * 64, tokenizer="t" * 64)
    runs = [
        RunSpec(stages=(StageSpec(model=model, task=task, method=method),), evals=evals)
        for method in (PlainLoRA(), Case1(lam=1.0, safety=safety), Case1(lam=2.0, safety=safety))
    ]
    files = files_read(runs)
    assert [one.set for one in files] == ["task", "harmful", "safety data"]
    assert lines(files)[1] == (
        f"harmful ({tmp_path}/harmful.json#first-3): 20 rows read; prompt from 'goal', response "
        "from 'answer'; not read: 'id'"
    )
    (part,) = measured(Results(sweep="s", cells=[], files=files))
    ((_, table),) = part.tables
    assert part.title == "Files"
    assert list(table["Set"]) == ["task", "harmful", "safety data"]
    assert "not read: 'id'" in table["Read"][0]
