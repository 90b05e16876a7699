"""What a sweep counts is its own: not what other models, rows or readings in its store cost."""

from types import SimpleNamespace

import tiny
import torch

from raycib.config import (
    EvalSpec,
    JudgeSpec,
    LoRASpec,
    ModelSpec,
    PlainLoRA,
    RowsSpec,
    TaskSpec,
    TrainerSpec,
)
from raycib.config.grid import single_task
from raycib.methods.cib import CIB
from raycib.models.reference import compute_cache
from raycib.report.measured import OF_THE_GRID, counted
from raycib.results import Counts, Results
from raycib.runtime.failures import failed_before, remember_failure
from raycib.runtime.named_judges import NamedJudge
from raycib.runtime.references import (
    distinct_examples,
    reference_forwards,
    references,
    trained_tokens,
)
from raycib.runtime.sweep import Sweep
from raycib.store import Store
from raycib.store.kinds import FORWARDS, STAGES
from raycib.studies.tradeoff.measure import GapSpec
from raycib.training.group import load

MODEL = ModelSpec(source="here", weights="w" * 64, tokenizer="t" * 64)
OTHER = MODEL.model_copy(update={"weights": "o" * 64})
TASK = TaskSpec(name="task", source="", rows="1" * 64, num_rows=100)
HELD_OUT = RowsSpec(name="held out", source="", rows="2" * 64, num_rows=10)
BEYOND = RowsSpec(name="rows of the gaps", source="", rows="3" * 64, num_rows=7)
READ = ["mean_response.final_norm", "last_prompt_token.final_norm"]


def sweep_of(store, model=MODEL, measures=()):
    """Plain LoRA and CIB on one task."""
    evals = EvalSpec(harmful=HELD_OUT, held_out=HELD_OUT, measures=measures)
    runs = single_task([model], [(TASK, evals)], [PlainLoRA(), CIB()], [0], LoRASpec(),
                       TrainerSpec())  # fmt: skip
    setup = SimpleNamespace(
        options=SimpleNamespace(out=store.root), model=model,
        judges=(NamedJudge("guard", JudgeSpec(kind="guard", source="", weights="j" * 64)),),
        execution=SimpleNamespace(group_size=None),
    )  # fmt: skip
    return Sweep(setup, runs)  # pyright: ignore[reportArgumentType]


def passed(store, model, rows, examples, features=READ, max_length=None, name="a"):
    """Notes a pass as `compute_cache` does."""
    about = {"model": model.key, "rows": rows.rows, "examples": examples,
             "max_length": max_length or rows.max_length, "readings": features}  # fmt: skip
    store.put(FORWARDS, (name + rows.rows)[:40], lambda folder: None, about)


def test_another_models_passes_over_the_same_rows_are_not_this_sweeps(tmp_path):
    """100 + 10 of this model; 100 of another, 100 read for something else, 100 cut elsewhere."""
    store = Store(tmp_path)
    passed(store, MODEL, TASK, 100)
    passed(store, MODEL, HELD_OUT, 10)
    passed(store, OTHER, TASK, 100, name="b")
    passed(store, MODEL, TASK, 100, ["response_nll.final_norm"], name="c")
    passed(store, MODEL, TASK, 100, max_length=TASK.max_length + 1, name="d")
    passed(store, MODEL, BEYOND, 7)
    found = sweep_of(store)
    assert reference_forwards(found) == distinct_examples(found) == 110
    assert reference_forwards(sweep_of(store, OTHER)) == 100


def test_rows_that_the_gaps_read_are_counted_with_theirs(tmp_path):
    store = Store(tmp_path)
    for rows in (TASK, HELD_OUT, BEYOND):
        passed(store, MODEL, rows, rows.num_rows)
    found = sweep_of(store, measures=(GapSpec(alignment=HELD_OUT, task=BEYOND),))
    assert reference_forwards(found) == distinct_examples(found) == 117


def test_a_second_pass_for_more_readings_is_counted_and_seen(tmp_path):
    store = Store(tmp_path)
    passed(store, MODEL, TASK, 100, READ[:1])
    passed(store, MODEL, TASK, 100, READ[1:], name="b")
    passed(store, MODEL, HELD_OUT, 10)
    found = sweep_of(store)
    wanted = {".".join(one) for _, features in references(found) for one in features}
    expected = 110 + 100 * (READ[1] in wanted)
    assert (reference_forwards(found), distinct_examples(found)) == (expected, 110)


def test_a_pass_is_noted_with_its_model(tmp_path, tiny_folder):
    store, stage = Store(tmp_path), tiny.make_stage(tiny_folder)
    loaded = load([stage], torch.device("cpu"))
    data = loaded.encode(stage.task)
    compute_cache(store, loaded.adapters, stage.model, data, stage.task.rows, 64,
                 [("last_prompt_token", "final_norm")])  # fmt: skip
    [record] = store.records(FORWARDS)
    assert record.about == {
        "model": stage.model.key, "rows": stage.task.rows, "max_length": 64,
        "examples": len(data), "readings": ["last_prompt_token.final_norm"],
    }  # fmt: skip


def test_a_stage_fails_once_however_many_cells_need_it(tmp_path):
    store = Store(tmp_path)
    found = sweep_of(store)
    key = found.runs[0].final.key
    remember_failure(found, key, "out of memory", "traceback")
    remember_failure(found, key, "out of memory", "traceback")
    elsewhere = sweep_of(store, OTHER)
    assert list(failed_before(found)) == [key] and failed_before(elsewhere) == {}


def test_counts_say_whether_they_are_the_grids_or_the_last_runs():
    counts = Counts(stages=4, stages_trained=0, judge_calls=0, reference_forwards=110)
    told = dict(counted(Results(sweep="s", cells=[], counts=counts, timings_s={"total": 1.5})))
    assert told == {
        "grid: stages": "4", "grid: reference forwards": "110", "last run: stages trained": "0",
        "last run: judge calls": "0", "last run, time in s: total": "1.5",
    }  # fmt: skip
    assert not {"stages_trained", "stages_reused", "engine_starts", "judge_calls"} & {*OF_THE_GRID}
    assert counted(Results(sweep="s", cells=[])) == []


def test_tokens_trained_on_are_counted_with_their_padding(tmp_path):
    """A stage that is not trained, or was before tokens were counted, leaves the sums open."""
    store = Store(tmp_path)
    lora, cib = (run.final for run in sweep_of(store).runs)
    tokens = {"steps": lora.steps, "useful": 900, "computed": 1000}
    store.put(STAGES, lora.key, lambda folder: None, {"tokens": tokens})
    rows, sums = trained_tokens(sweep_of(store))
    assert [one.plain() for one in rows] == [
        {"task": "task", "stages": 1, "steps": lora.steps, "useful_tokens": 900,
         "computed_tokens": 1000, "useful_share": 0.9},
    ]  # fmt: skip
    assert sums == {"tokens_useful": None, "tokens_computed": None}, "cib is not trained"
    store.put(STAGES, cib.key, lambda folder: None, {"steps": cib.steps})
    assert trained_tokens(sweep_of(store))[0][0].stages == 1
    store.discard(STAGES, cib.key)
    store.put(STAGES, cib.key, lambda folder: None, {"tokens": tokens | {"useful": 500}})
    ([row], sums) = trained_tokens(sweep_of(store))
    assert (row.stages, row.useful_share) == (2, 0.7)
    assert sums == {"tokens_useful": 1400, "tokens_computed": 2000}
