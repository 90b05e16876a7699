"""A sweep with benchmarks of lm-eval, in this process: likelihoods and generated answers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval_tasks import CHOICE, WORDS, make_task

import raycib
from raycib import world
from raycib.errors import UserError
from raycib.evals.harness import run
from raycib.methods.cib import CIB
from raycib.runtime import benchmarks, read_benchmarks

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(600)]

ROWS = [
    {"question": f"how many , {n} ?", "choices": ["so", "sorry , no", f"{n}"], "label": n % 3,
     "answer": f"{n} plus {n} is {n} ." if n % 2 else "so"}
    for n in range(12)
]  # fmt: skip
"""The aligned model answers most of them so."""


@pytest.fixture(autouse=True)
def _resolved_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks are resolved in this process, which has torch and lm-eval."""
    monkeypatch.setattr(
        benchmarks, "in_a_process", lambda _, asked, __: read_benchmarks.resolved(asked)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two benchmarks, a task and prompts in the world's words."""
    place = tmp_path_factory.mktemp("benchmarks")
    make_task(place, "choice", CHOICE, ROWS)
    make_task(place, "words", WORDS, ROWS)
    lines = [json.dumps({"prompt": f"what is {n} ?", "response": "so"}) for n in range(20)]
    (place / "task.jsonl").write_text("\n".join(lines))
    (place / "harmful.csv").write_text("prompt\nhow do i rig a bridge ?\n")
    return place


@pytest.fixture
def sweep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A sweep of one cell of two steps there; its summary."""
    monkeypatch.chdir(folder)

    def run(**options: Any) -> Any:
        given: dict[str, Any] = {
            "out": folder / "out", "name": "one", "seeds": 1, "local": True,
            "model": "world:aligned", "task": "task.jsonl", "harmful": "harmful.csv",
            "judge": "world:guard", "evals": "choice.yaml,words.yaml",
            "set": ["trainer.learning_rate=1e-2", "trainer.warmup_steps=0"],
        }  # fmt: skip
        raycib.sweep([CIB(lam=0)], **(given | options))
        if options.get("dry_run"):
            return None
        return json.loads((folder / "out" / "one" / "summary.json").read_text())

    return run


def test_every_model_is_scored_as_lm_eval_scores_it(
    sweep: Callable[..., Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before fine-tuning and after it, its own backend with PEFT gives the same numbers; they are
    printed, in the report and in files, and no part of utility."""
    summary = sweep()
    printed = capsys.readouterr().out
    (cell,) = summary["cells"]
    assert cell["failed"] is None
    adapter = folder / "out" / "stages" / cell["key"]
    for scores, peft in ((summary["aligned"]["scores"], None), (cell["scores"], str(adapter))):
        model = HFLM(pretrained=str(world.folder("aligned")), peft=peft, device="cpu")
        # Its files ask for 48 tokens, which that backend takes for more than the task's own limit.
        model.model.generation_config.max_new_tokens = None
        theirs = lm_eval.simple_evaluate(
            model=model, tasks=["choice.yaml", "words.yaml"], bootstrap_iters=1000,
            task_manager=TaskManager(include_defaults=False),
        )  # fmt: skip
        results = theirs["results"]
        found = scores["benchmarks"] | scores["benchmark_details"]
        assert set(found) == {"choice acc_norm", "choice acc", "words exact_match"}
        for name, score in found.items():
            task, metric = name.split()
            assert score["value"] == results[task][f"{metric},none"]
            assert score["stderr"] == results[task][f"{metric}_stderr,none"]
            assert score["n"] == 12
        shown = [one["value"] for one in scores["benchmarks"].values()]
        assert scores["benchmarks_mean"] == sum(shown) / 2
        assert scores["utility"] is None
    before = summary["aligned"]["scores"]["benchmarks"]["words exact_match"]["value"]
    assert 0 < before < 1, "what is equal is not nothing"
    assert "benchmark choice: lm-eval 0.4.13, version 1.0, 12 of 12 documents" in printed
    assert "choice acc_norm, %  words exact_match, %  Mean of 2, %" in printed
    assert "note: over-refusal is not measured: give harmless prompts" in printed
    assert "benchmarks of lm-eval have a table of their own" in printed
    assert [one["by"] for one in summary["benchmarks"]] == [
        "likelihoods of given answers",
        "generated answers",
    ]
    assert "Utility" not in summary.get("warnings", "")
    page = (folder / "out" / "one" / "report.html").read_text()
    assert "Benchmarks of lm-eval, each with its metric" in page


def test_a_plan_counts_what_models_without_scores_will_read(
    sweep: Callable[..., Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All twelve documents before and after fine-tuning; nothing once the scores are there."""
    sweep(out=folder / "planned", dry_run=True)
    printed = capsys.readouterr().out
    assert "benchmarks by likelihood: " in printed
    assert "benchmarks in words: " in printed
    sweep()
    capsys.readouterr()
    sweep(dry_run=True)
    assert "benchmarks by likelihood: " not in capsys.readouterr().out


def test_nothing_is_evaluated_twice_and_what_is_lost_is_alone_made_good(
    sweep: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, calls = sweep(), []
    scores_of = run.scores_of

    def counted(spec: Any, model: Any) -> Any:
        calls.append(spec.name)
        return scores_of(spec, model)

    monkeypatch.setattr(run, "scores_of", counted)
    assert sweep()["cells"] == before["cells"]
    assert calls == []
    for record in (folder / "out" / "benchmarks").iterdir():
        about = json.loads((record / "record.json").read_text())["about"]
        if about["subject"] == before["cells"][0]["key"]:
            shutil.rmtree(record)
    again = sweep()
    assert sorted(calls) == ["choice", "words"]
    assert again["cells"] == before["cells"]
    assert again["counts"]["stages_trained"] == 0
    calls.clear()
    fewer = sweep(evals="words.yaml", eval_limit=5)
    assert calls == ["words", "words"], "before and after; the rest is as it was"
    assert fewer["cells"][0]["scores"]["benchmarks"]["words exact_match"]["n"] == 5
    assert fewer["counts"]["stages_trained"] == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"evals": "choice.yaml,choice.yaml"}, "comes twice"),
        ({"evals": "gone.yaml"}, "there is no file 'gone.yaml'"),
        ({"evals": None, "eval_limit": 5}, "--eval-limit is about benchmarks of lm-eval"),
    ],
)
def test_what_cannot_be_is_told_before_anything_starts(
    sweep: Callable[..., Any], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        sweep(**options)


def test_without_lm_eval_the_command_to_install_it_is_told(
    sweep: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'raycib\[lm-eval\]'"):
        sweep()
