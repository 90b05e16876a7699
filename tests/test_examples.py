"""The files of docs/examples, which the guides show: each does what its guide says."""

import importlib.util
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny

from raycib.config.menu import from_place
from raycib.data.rows import Row
from raycib.errors import UserError
from raycib.evals.scorers import scorer
from raycib.invariances import accumulation, reference_cache, resume, zero_strength
from raycib.invariances.bench import Bench
from raycib.metrics import rate
from raycib.model_files import describe
from raycib.results import Cell, Results, Scores
from raycib.runtime.command import Question, run_question
from raycib.runtime.options import Options

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def test_a_scorer_of_ones_own_by_hand() -> None:
    """1 % of 200 is 2: 198 and 202 are right, 197.9 is not; where no number is wanted, nothing is
    said."""
    near = scorer(f"{EXAMPLES}/near_number.py:within_one_percent")
    answers = ["198", "It is 202.", "197.9", "two hundred"]
    assert [near.score(Row("How far?", "200"), one) for one in answers] == [
        True,
        True,
        False,
        False,
    ]
    assert near.score(Row("How far?", "very far"), "200") is None
    assert "near_number.py:within_one_percent (" in near.name


def test_a_function_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="within_two_percent"):
        scorer(f"{EXAMPLES}/near_number.py:within_two_percent")


def example(name: str) -> Any:
    """A file of the examples as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def a_cell(part: int, seed: int, harmful: int) -> Cell:
    """Plain LoRA at 0.002 / part, with `harmful` of 100 answers."""
    label = f"learning rate {0.002 / part:g}"
    scores = Scores(hrr=rate(harmful, 100), eval_loss=0.03)
    place = {"key": f"{part} {seed}", "seed": seed, "task": "open", "model": "m"}
    return Cell(method="lora", strength=0, label=label, scores=scores, **place)


@pytest.mark.parametrize(("last", "holds"), [(30, True), (50, False)])
def test_a_study_of_ones_own_by_hand(last: int, holds: bool) -> None:
    """Seed 0: 80, 40, `last` of 100; seed 1: 60, 40, 20. Means .7, .4, (`last` + 20) / 200."""
    study = example("learning_rate")
    counts = {0: (80, 40, last), 1: (60, 40, 20)}
    cells = [
        a_cell(part, seed, harmful)
        for seed, row in counts.items()
        for part, harmful in zip(study.PARTS, row, strict=True)
    ]
    results = Results(sweep="learning_rate", cells=cells)
    report = study.LearningRate().report(results, {}, {})
    [claim] = report.claims
    assert claim.holds is holds
    assert report.main.rows["hrr"].tolist() == pytest.approx([0.7, 0.4, (last + 20) / 200])
    assert "0.0005" in report.terminal()


def test_the_example_of_a_study_plans_its_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three learning rates, two seeds; a fourth of 0.002 is 0.0005."""
    study = example("learning_rate")
    question = Question(
        name="learning_rate",
        question="Is a lower learning rate a defence?",
        runs=lambda setup: setup.runs_of(study.variants(setup)),
        study=study.LearningRate(),
    )
    assert run_question(question, Options(out=str(tmp_path), seeds=2, dry_run=True)) == 0
    assert "learning_rate: 6 stages, 0 reused, 6 to train" in capsys.readouterr().out


def test_a_method_of_ones_own_has_the_invariances(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for those of a group and of two processes, which `raycib methods check` runs as well."""
    monkeypatch.setattr("raycib.config.menu._GIVEN", {})
    method = from_place(f"{EXAMPLES}/anchor_method.py")()
    bench = Bench(
        model=describe(str(tiny_folder / "model")),
        base=tiny.make_base(tiny_folder),
        task=tiny.make_stage(tiny_folder, 48).task,
        safety=tiny.make_safety(tiny_folder),
        root=tmp_path,
    )
    checks = (zero_strength, accumulation, resume, reference_cache)
    assert [found for check in checks if not (found := check(bench, method)).passed] == []


def test_a_sweep_from_python_plans_and_its_table_is_of_finished_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two seeds of two strengths; 20 and 40 of 100 are 30 % in the mean, the failed cell apart."""
    python = example("from_python")
    assert python.two_strengths(out=str(tmp_path), seeds=2, dry_run=True).empty
    assert "two_strengths: 4 stages, 0 reused, 4 to train" in capsys.readouterr().out
    rates = {"hrr": [0.2, 0.4, 0.9], "refusal_rate": [0.8, 0.6, 0.1], "eval_loss": [1, 2, 9]}
    cells = pd.DataFrame({"strength": 5.0, "failed": [None, None, "no room"], **rates})
    assert python.table(cells).loc[5.0].tolist() == pytest.approx([30, 70, 1.5])
