"""A study brings what only it needs: the core knows none, and a third party's is a file."""

import subprocess
import sys
from pathlib import Path

import own_study
import pytest
import tiny
from own_study import Distance, UpdateNorm

from raycib.config import EvalSpec, PlainLoRA, RunSpec
from raycib.errors import UserError
from raycib.evals.scores import Missing, Scoring, load_measures, load_values
from raycib.methods.cib import CIB
from raycib.models.device import device_of
from raycib.results import Scores, read_results
from raycib.runtime.build import build_config
from raycib.runtime.command import Question, run_question
from raycib.runtime.measuring import measure_slots
from raycib.runtime.options import Options
from raycib.runtime.study import OF_STUDIES, Study
from raycib.runtime.sweep_config import SweepConfig
from raycib.store import Store
from raycib.studies.comparison import Ablation, Comparison
from raycib.studies.continual import Continual
from raycib.studies.strength import Strength
from raycib.studies.tradeoff import Tradeoff
from raycib.studies.tradeoff.measure import GapSpec
from raycib.training.group import STAGES, load

SWEEPS = Path(__file__).parents[2] / "sweeps"


@pytest.fixture(scope="module")
def evals(tmp_path_factory: pytest.TempPathFactory) -> EvalSpec:
    """With a measure of a third party's."""
    whole = tiny.make_evals(tmp_path_factory.mktemp("rows"))
    return whole.model_copy(update={"measures": (UpdateNorm(),)})


def test_a_measure_of_any_class_is_rebuilt_from_its_json(evals: EvalSpec):
    """As a worker gets it."""
    gaps = GapSpec(alignment=evals.held_out, task=evals.harmful)
    both = evals.model_copy(update={"measures": (gaps, UpdateNorm())})
    again = EvalSpec.model_validate_json(both.model_dump_json())
    assert again == both
    assert [type(one) for one in again.measures] == [GapSpec, UpdateNorm]
    assert again.key == both.key != evals.key


def test_a_measure_in_the_script_itself_is_found_by_workers(
    evals: EvalSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whose main module is another; without its folder they say so."""
    script = tmp_path / "my_sweep.py"
    script.write_text(
        "import sys\n"
        "from raycib.config import EvalSpec, Measure\n"
        "class Mine(Measure):\n"
        "    folder = 'mine'\n"
        "if __name__ == '__main__':\n"
        "    evals = EvalSpec.model_validate_json(sys.argv[1])\n"
        "    print(evals.model_copy(update={'measures': (Mine(),)}).model_dump_json())\n"
    )
    plain = evals.model_copy(update={"measures": ()}).model_dump_json()
    sent = subprocess.run(
        [sys.executable, str(script), plain], capture_output=True, text=True, check=True
    ).stdout
    with pytest.raises(ValueError, match=r"my_sweep:Mine cannot be imported .* PYTHONPATH"):
        EvalSpec.model_validate_json(sent)
    monkeypatch.syspath_prepend(str(tmp_path))
    (mine,) = EvalSpec.model_validate_json(sent).measures
    assert (type(mine).__module__, type(mine).__name__) == ("my_sweep", "Mine")


def test_no_key_knows_where_a_measure_s_code_is(evals: EvalSpec):
    moved = type("Elsewhere", (UpdateNorm,), {"__module__": "another"})
    other = evals.model_copy(update={"measures": (moved(),)})
    assert other.key == evals.key
    assert other.measured_keys("subject") == evals.measured_keys("subject")


def test_two_measures_in_one_folder_are_refused(evals: EvalSpec):
    twice = evals.model_copy(update={"measures": (UpdateNorm(), UpdateNorm())})
    with pytest.raises(ValueError, match="update_norms"):
        _ = twice.key


def test_a_measure_of_ones_own_is_stored_once(
    evals: EvalSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It finds the distance that the core measures too; what is stored is not measured again."""
    store, stage = Store(tmp_path / "store"), tiny.make_stage(tmp_path, method=PlainLoRA())
    tiny.train_chain((stage,), store)
    loaded = load([stage], device_of(0))
    record = store.get(STAGES, stage.key)
    assert record
    loaded.adapters.freeze(0, record.folder)
    with pytest.raises(Missing, match="update_norms"):
        load_values(store, stage.key, UpdateNorm())
    measure_slots(loaded, store, stage.model, {0: stage.key}, evals)
    found = load_values(store, stage.key, UpdateNorm())["norm"]
    assert found == pytest.approx(load_measures(store, stage.key, evals)["distance"], rel=1e-6)
    assert found > 0.1
    monkeypatch.setattr(own_study.UpdateNorm, "measure", lambda *_: pytest.fail("again"))
    measure_slots(loaded, store, stage.model, {0: stage.key}, evals)


def test_a_study_of_ones_own_is_asked_for_its_measures():
    setup = build_config(Options(), Distance())
    ((_, evals),) = setup.tasks.values()
    assert evals.measures == (UpdateNorm(),)
    assert build_config(Options(), Strength()).tasks["open"][1].measures == ()


def test_a_study_of_ones_own_from_files_to_report(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its measure stands beside the core's distance in every cell and equals it. The aligned model
    did not move, and is scored once for both cells. A second run only reads."""
    files = {
        "task": tiny.make_rows(tmp_path / "task.jsonl", 40),
        "harmful": tiny.make_rows(tmp_path / "harmful.jsonl", 4, seed=2),
    }
    options = Options(
        out=str(tmp_path / "out"), model=str(tiny_folder / "model"), judge="world:guard",
        judge_profile="world", strengths="0,5", local=True, seeds=1, max_tokens=8,
        set=["trainer.batch_size=8", "trainer.warmup_steps=0"],
        **{name: str(file) for name, file in files.items()},
    )  # fmt: skip

    def runs(setup: SweepConfig) -> list[RunSpec]:
        return setup.runs_of([CIB(lam=lam) for lam in setup.strengths("cib", ())])

    scored: list[str] = []

    score = Scoring.scores

    def counted(self: Scoring, model_id: str, evals: EvalSpec) -> Scores:
        scored.append(model_id)
        return score(self, model_id, evals)

    monkeypatch.setattr(Scoring, "scores", counted)
    question = Question("moved", "How far does it go?", runs, Distance())
    assert run_question(question, options) == 0
    told = read_results(tmp_path / "out" / "moved")
    assert told.study == "distance" and told.aligned.scores is not None
    assert told.aligned.scores.given()["moved"] == 0
    for cell in told.cells:
        assert cell.scores is not None, cell.failed
        assert cell.scores.given()["moved"] == pytest.approx(cell.scores.distance, rel=1e-6)
    assert len(set(scored)) == 3, "and again for a page that is written while it runs"
    assert (tmp_path / "out" / "moved" / "report.html").exists()
    assert run_question(question, options) == 0
    counts = read_results(tmp_path / "out" / "moved").counts
    assert (counts.stages_trained, counts.stages_reused) == (0, 2)


@pytest.mark.parametrize("option", OF_STUDIES)
@pytest.mark.parametrize("study", [Strength(), Comparison(), Ablation(), Tradeoff(), Continual()])
def test_an_option_about_other_studies_is_refused(study: Study, option: str):
    if option not in study.options:
        with pytest.raises(
            UserError, match=f"--{option.replace('_', '-')} is not about a {study.name} study"
        ):
            build_config(Options(**{option: "x"}), study)


@pytest.mark.parametrize(
    ("sweep", "own"),
    [("lambda_grid", "strength"), ("task_orders", "continual"), ("penalty_grid", "tradeoff")],
)
def test_a_sweep_imports_its_own_study_alone(sweep: str, own: str):
    """And neither torch nor Ray before there is something to do."""
    code = (
        f"import runpy, sys; runpy.run_path({str(SWEEPS / f'{sweep}.py')!r}); "
        "rooms = {name.split('.')[2] for name in sys.modules if name.startswith('raycib.studies.')}"
        "; print(*sorted(rooms | {'torch', 'ray', 'matplotlib'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [own]
