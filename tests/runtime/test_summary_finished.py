"""What a summary says of a sweep that is done, against what its store holds."""

from pathlib import Path

import pytest
import synthetic_sweep
from synthetic_sweep import STEPS, sweep_in

from raycib import world
from raycib.config import PlainLoRA, RunSpec
from raycib.config.grid import Variant
from raycib.evals.scores import MEASURES_FILE, load_measures
from raycib.methods.cib import CIB
from raycib.results import Point, Results
from raycib.runtime.command import Question
from raycib.runtime.summary import (
    all_samples,
    reasons,
    stored_histories,
    stored_times,
    summarise,
)
from raycib.runtime.sweep import Sweep
from raycib.store.kinds import MEASURES, POINTS
from raycib.studies.comparison import Comparison

BESIDE = (
    "mutual_information", "mutual_information_last_prompt", "negative_cosine", "eval_loss",
)  # fmt: skip
"""Measures that a cell has of the aligned model, too."""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Plain LoRA, CIB, and LoRA after a stage on safety data, with a look after 100 of 200
    steps; of CIB's training the looks are of another one."""
    out, given = tmp_path_factory.mktemp("finished"), {"seeds": 1, "hrr_every": 100}
    asked = Question(
        name="done",
        question="Is it done?",
        runs=lambda setup: setup.runs_of(
            [PlainLoRA(), CIB(lam=5), Variant(PlainLoRA(), "chain", safety=setup.safety)]
        ),
        study=Comparison(()),
    )
    synthetic_sweep.fill(out, asked, given)
    sweep = sweep_in(out, asked, given)
    for run, as_stored in zip(sweep.runs, (True, False, True), strict=True):
        about = {"ends_as_stored": as_stored}
        sweep.store.put_text(POINTS, run.final.point_key(STEPS), "end", "", about)
    return sweep


def told(sweep: Sweep, failures: dict[str, str] | None = None) -> Results:
    asked, timings = ("done", "Is it done?"), {"train": 1.2345, "total": 2.999}
    return summarise(sweep, asked, sweep.plan(1), failures or {}, {"judge_calls": 3}, timings)


def test_cells_have_their_own_scores_and_the_aligned_models_beside_them(sweep: Sweep) -> None:
    """And what is of the whole: four stages of 50,000 tokens, 60,000 with padding."""
    found = told(sweep)
    first = load_measures(sweep.store, sweep.setup.model.key, sweep.runs[0].evals)
    assert found.aligned.scores and found.aligned.scores.eval_loss == first["eval_loss"]
    for cell, run in zip(found.cells, sweep.runs, strict=True):
        own, scores = load_measures(sweep.store, run.final.key, run.evals), cell.scores
        assert cell.key == run.final.key and cell.failed is None and scores
        assert [getattr(scores, name) for name in BESIDE] == [own[name] for name in BESIDE]
        before = [getattr(scores, f"{name}_before") for name in BESIDE]
        assert before == [first[name] for name in BESIDE] and first["eval_loss"] != own["eval_loss"]
    assert found.timings_s == {"train": 1.23, "total": 3.0}
    assert (found.sweep, found.question, found.preset) == ("done", "Is it done?", "world")
    counts = found.counts
    assert (counts.tokens_useful, counts.tokens_computed) == (4 * 50_000, 4 * 60_000)
    assert (counts.stages, counts.stages_reused, counts.stages_trained) == (4, 4, 0)
    assert (counts.stages_failed, counts.cells_failed, counts.judge_calls) == (0, 0, 3)
    assert not found.damaged and not found.judge.out_of_its_world


def rate_of(sweep: Sweep, model_id: str, run: RunSpec) -> float:
    """The share of harmful answers to the prompts of a look, by the world's rule."""
    rows = run.evals.at_points().harmful
    said = sweep.answers.read(model_id, rows, run.evals.engine)
    assert said
    pairs = zip(sweep.answers.rows(rows), said.texts, strict=True)
    return sum(world.is_unsafe(row.prompt, text) for row, text in pairs) / rows.num_rows


def test_a_curve_begins_where_its_stage_does(sweep: Sweep) -> None:
    """Which is at the end of the stage before it, where there is one: a chain's curve began with
    the aligned model, which its last stage never was."""
    found, aligned = told(sweep), sweep.setup.model.key
    parent = sweep.runs[2].stages[0]
    for cell, run, start in zip(
        found.cells, sweep.runs, (aligned, aligned, parent.key), strict=True
    ):
        ids = (start, run.final.point_key(100), run.final.key)
        by_hand = [rate_of(sweep, one, run) for one in ids]
        assert [_value(one) for one in cell.points] == list(
            zip((0, 100, 200), by_hand, strict=True)
        )
    assert [cell.points_apart for cell in found.cells] == [False, True, False]
    assert rate_of(sweep, aligned, sweep.runs[2]) != rate_of(sweep, parent.key, sweep.runs[2])


def _value(point: Point) -> tuple[int, float | None]:
    return point.step, point.scores.hrr and point.scores.hrr.value


def test_what_failed_or_is_damaged_has_no_scores_and_the_rest_keeps_its_own(sweep: Sweep) -> None:
    """A damaged measure is set aside and told; without the aligned model's no cell has a "before",
    and so none is done."""
    whole, (lora, cib, _) = told(sweep).cells, (run.final for run in sweep.runs)
    out_of_memory = told(sweep, {cib.key: "out of memory"})
    assert [one.failed for one in out_of_memory.cells] == [None, "out of memory", None]
    assert out_of_memory.cells[1].scores is None
    assert [out_of_memory.cells[place] for place in (0, 2)] == [whole[0], whole[2]]
    counts = out_of_memory.counts
    assert (counts.stages_failed, counts.cells_failed) == (1, 1)

    def without(model_id: str) -> list[str | None]:
        evals = sweep.runs[0].evals
        key = evals.measures_key(model_id)
        (Path(sweep.store.root) / MEASURES / key / MEASURES_FILE).write_text("{}")
        found = told(sweep)
        synthetic_sweep.Models().measures(sweep.store, model_id, evals)
        assert [line.partition(":")[0] for line in found.damaged] == [f"{MEASURES}/{key}"]
        sweep.store.damaged.clear()
        assert (found.aligned.scores is None) is (model_id == sweep.setup.model.key)
        return [one.failed for one in found.cells]

    gap = f"not finished: no measures of {lora.key[:12]}"
    assert without(lora.key) == [gap, None, None]
    aligned = sweep.setup.model.key
    assert without(aligned) == [f"not finished: no measures of {aligned[:12]}"] * 3
    assert told(sweep).cells == whole


def test_answers_curves_and_times_are_by_stage(sweep: Sweep) -> None:
    samples = all_samples(sweep)
    assert list(samples) == ["aligned", *(run.final.key for run in sweep.runs)]
    for (key, given), cell in zip(samples.items(), (None, *told(sweep).cells), strict=True):
        scores = told(sweep).aligned.scores if cell is None else cell.scores
        assert scores and scores.hrr, key
        harmful = sum(one["verdict"] == "unsafe" for one in given) / len(given)
        assert harmful == scores.hrr.value
    key, absent = sweep.runs[0].final.key, "0" * 64
    curves = stored_histories(sweep.store, [key, absent])
    assert list(curves) == [key] and [one["step"] for one in curves[key]] == list(range(1, 201))
    assert stored_times(sweep.store, [key, absent]) == {key: sweep.times[key]}
    assert reasons({"a": "one", "b": "two", "c": "two"}) == ["2 x two", "1 x one"]
