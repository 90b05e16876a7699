"""What a trade-off sweep is about, from options to runs; and what is told where something lacks."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from raycib.config import ModelSpec, RunSpec
from raycib.config.plan import make_plan, waits
from raycib.data.chat import CHATML
from raycib.data.rows import describe_task, load_rows
from raycib.errors import UserError
from raycib.methods.case1 import Case1
from raycib.methods.case2 import Case2
from raycib.methods.case2_ball import Case2Ball
from raycib.model_files import describe
from raycib.runtime.build import build_config
from raycib.runtime.options import Options
from raycib.runtime.study import Inputs
from raycib.runtime.sweep_config import SweepConfig
from raycib.store import Store
from raycib.studies.strength import Strength
from raycib.studies.tradeoff import Tradeoff, inputs_of
from raycib.studies.tradeoff.jobs import AnswerTokens
from raycib.studies.tradeoff.measure import gaps_of

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"
BALLS = len(runpy.run_path(str(SWEEPS / "epsilon_grid.py"))["EPSILONS"])


def save(folder: Path, name: str, rows: list[tuple[str, str]]) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in rows))
    return str(path)


Own = Callable[..., Options]


@pytest.fixture
def own(tmp_path: Path, tiny_folder: Path) -> Own:
    """Options of a person with a model and files of their own; each may be changed or left out."""
    task = [(f"task {n}", f"done {n}") for n in range(20)]
    aligned = [(f"ask {n}", f"no {n}") for n in range(6)]
    given = {
        "out": str(tmp_path / "out"),
        "model": str(tiny_folder / "model"),
        "task": save(tmp_path, "task", task),
        "harmful": save(tmp_path, "harmful", [(f"harm {n}", "") for n in range(3)]),
        "alignment": save(tmp_path, "aligned", aligned),
        "judge": "world:guard",
    }

    def options(**overrides: Any) -> Options:
        return Options(**{**given, **overrides})

    return options


def refused(options: Options) -> str:
    """What is said; one line, as the command shows it."""
    with pytest.raises(UserError) as error:
        build_config(options, Tradeoff())
    said = str(error.value)
    assert "\n" not in said
    return said


# The embedded world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SweepConfig:
    return build_config(Options(out=str(tmp_path_factory.mktemp("world"))), Tradeoff())


def test_the_world_s_aligned_model_is_made_from_its_base(world: SweepConfig):
    alignment_stage = world.inputs.alignment_stage
    assert (alignment_stage.model, alignment_stage.lora) == (describe("world:base"), None)
    assert alignment_stage.task.source == "world:align.train"
    assert alignment_stage.steps == 3 * 3200 / 32
    assert world.model == alignment_stage.made_model(world.options.out)
    assert world.model_name == "world:base aligned on original data"


def test_the_world_s_proxies_start_with_the_original_data(world: SweepConfig):
    sources = {name: proxy.source for name, proxy in inputs_of(world).proxies.items()}
    assert list(sources.items()) == [
        ("original data", "world:align.train"),
        ("near outputs", "world:align.near"),
        ("far outputs", "world:align.far"),
        ("other inputs", "world:align.other"),
    ]
    assert inputs_of(world).alignment == inputs_of(world).proxies["original data"]


def test_gaps_are_measured_on_held_out_alignment_rows_and_on_trained_task_rows(world: SweepConfig):
    """Eq. 19 on fresh draws of the same law; Eq. 20 on rows of the task's own, as in the paper."""
    assert list(world.tasks) == ["open", "recast", "gsm"]
    for name, (_, evals) in world.tasks.items():
        gaps = gaps_of(evals)
        assert (gaps.alignment.source, gaps.alignment.num_rows) == (
            "world:align.test", 400
        )  # fmt: skip
        assert gaps.task.source == f"world:{name}.train#first-400"
        assert gaps.task.num_rows == 400


def test_other_sweeps_know_no_gaps_and_start_from_the_aligned_model():
    setup = build_config(Options(), Strength())
    assert setup.inputs == Inputs()
    assert setup.model == describe("world:aligned")
    assert setup.model_name == "world:aligned"
    assert list(setup.tasks) == ["open"]
    assert all(evals.measures == () for _, evals in setup.tasks.values())
    assert all(len(run.stages) == 1 for run in setup.runs_of([Case2()]))


def runs_of(sweep: str, setup: SweepConfig) -> list[RunSpec]:
    return runpy.run_path(str(SWEEPS / f"{sweep}.py"))["runs"](setup)


def counts(runs: list[RunSpec]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for run in runs:
        key = (run.final.task.name, run.method.kind)
        found[key] = found.get(key, 0) + 1
    return found


def test_the_penalty_grid_of_the_world(world: SweepConfig):
    """Five lambdas times four proxies on the first task, three times one on the others; LoRA on
    each; times three seeds."""
    runs = runs_of("penalty_grid", world)
    assert counts(runs) == {
        ("open", "lora"): 3,
        ("open", "case1"): 3 * 4 * 5,
        ("recast", "lora"): 3,
        ("recast", "case1"): 3 * 3,
        ("gsm", "lora"): 3,
        ("gsm", "case1"): 3 * 3,
    }
    assert len({run.key for run in runs}) == len(runs)
    labels = {run.label for run in runs if run.method.kind == "case1"}
    assert labels == {f"Case I, {name}" for name in inputs_of(world).proxies}


def test_the_epsilon_grid_of_the_world(world: SweepConfig):
    runs = runs_of("epsilon_grid", world)
    assert counts(runs) == {
        (task, kind): 3 * n
        for task in ("open", "gsm")
        for kind, n in {"lora": 1, "case2_ball": BALLS, "case2": 4}.items()
    } | {("open", "case1"): 3 * 5, ("open", "cib"): 3 * 4}


def test_both_grids_share_their_stages(world: SweepConfig):
    """LoRA, and Case I with the original data, of the first and the last task."""
    one, other = (
        {run.final.key for run in runs_of(name, world)} for name in ("penalty_grid", "epsilon_grid")
    )
    assert len(one & other) == 3 * (5 + 1 + 1)


@pytest.mark.parametrize("sweep", ["penalty_grid", "epsilon_grid"])
def test_every_cell_starts_from_the_model_that_is_made_first(sweep: str, world: SweepConfig):
    runs = runs_of(sweep, world)
    alignment_stage = world.inputs.alignment_stage
    assert all(run.stages == (alignment_stage, run.final) for run in runs)
    plan = make_plan(runs, lambda _: False, lambda stage, evals: False, 1)
    assert [[job.stage for job in group.jobs] for group in plan.levels[0]] == [[alignment_stage]]
    assert len(plan.levels) == 2
    assert waits(plan.levels[1]) == ["the model that all start from is made first"]
    assert plan.stages == 1 + len({run.final.key for run in runs})


def test_a_single_task_of_one_s_own_is_the_first_and_the_last(own: Own):
    setup = build_config(own(seeds=1), Tradeoff())
    assert counts(runs_of("epsilon_grid", setup)) == {
        ("task", kind): n
        for kind, n in {"lora": 1, "case2_ball": BALLS, "case2": 4, "case1": 5, "cib": 4}.items()
    }
    assert counts(runs_of("penalty_grid", setup)) == {("task", "lora"): 1, ("task", "case1"): 5}


def test_strengths_and_settings_of_one_s_own(own: Own):
    asked = own(seeds=1, methods="case2_ball,case1", strengths="0.5,inf",
                set=("case2_ball.scope=module",))  # fmt: skip
    with pytest.raises(UserError, match=r"case1 cannot have inf: .*finite.*Case1.lam"):
        runs_of("epsilon_grid", build_config(asked, Tradeoff()))
    asked = own(seeds=1, methods="case2_ball", strengths="0.5,inf",
                set=("case2_ball.scope=module",))  # fmt: skip
    methods = [run.method for run in runs_of("epsilon_grid", build_config(asked, Tradeoff()))]
    assert [method.kind for method in methods] == ["lora", "case2_ball", "lora"]
    assert methods[1] == Case2Ball(epsilon=0.5, scope="module")
    convex = own(seeds=1, strengths="0.9", set=("case1.form=convex",))
    (_, run) = runs_of("penalty_grid", build_config(convex, Tradeoff()))
    assert isinstance(run.method, Case1)
    assert (run.method.form, run.method.lam) == ("convex", 0.9)


# Data of one's own


def test_a_model_that_is_there_needs_no_maker(own: Own):
    options = own()
    setup = build_config(options, Tradeoff())
    assert setup.inputs.alignment_stage is None
    assert setup.model == describe(options.model)
    assert setup.model_name == options.model
    assert list(inputs_of(setup).proxies) == ["original data"]
    (task, evals) = setup.tasks["task"]
    assert task.num_rows == 18, "the tenth and the twentieth are held out"
    gaps = gaps_of(evals)
    assert gaps.alignment.source == f"{options.alignment}#first-400"
    assert gaps.alignment.num_rows == 6
    assert gaps.task.num_rows == 18
    assert all(len(run.stages) == 1 for run in runs_of("penalty_grid", setup))


def test_a_base_alone_is_aligned_first(own: Own, tiny_folder: Path):
    options = own(model=None, base=str(tiny_folder / "model"))
    setup = build_config(options, Tradeoff())
    alignment_stage = setup.inputs.alignment_stage
    assert alignment_stage.model == describe(str(tiny_folder / "model"))
    assert alignment_stage.lora is None
    assert alignment_stage.task.source == options.alignment
    assert setup.model.weights == alignment_stage.key
    assert setup.base == alignment_stage.model
    assert all(run.stages[0] == alignment_stage for run in runs_of("penalty_grid", setup))


def test_a_model_and_its_base_need_no_maker_either(own: Own, tmp_path: Path):
    base = str(tiny.make_model(tmp_path / "base", seed=1))
    setup = build_config(own(base=base), Tradeoff())
    assert setup.inputs.alignment_stage is None
    assert setup.base == describe(base)


def test_safety_data_of_one_s_own_are_a_proxy_by_their_name(own: Own, tmp_path: Path):
    proxy = save(tmp_path, "my_refusals", [("bad", "no"), ("worse", "never")])
    setup = build_config(own(safety=proxy), Tradeoff())
    assert list(inputs_of(setup).proxies) == ["original data", "my_refusals"]
    assert inputs_of(setup).proxies["my_refusals"].num_rows == 2
    labels = {run.label for run in runs_of("penalty_grid", setup)}
    assert labels == {"", "Case I, original data", "Case I, my_refusals"}


def test_the_key_of_what_is_made_does_not_depend_on_where_it_will_be(own: Own, tiny_folder: Path):
    """Nor do the cells' keys: the same command with another --out asks for the same stages."""
    base = str(tiny_folder / "model")
    setups = [
        build_config(own(model=None, base=base, out=f"/nowhere/{out}"), Tradeoff())
        for out in ("a", "b")
    ]
    keys = [[run.key for run in runs_of("epsilon_grid", setup)] for setup in setups]
    assert keys[0] == keys[1]
    assert setups[0].model.source != setups[1].model.source
    assert not Path("/nowhere").exists(), "nothing is written before anything runs"


def test_an_answers_length_is_counted_for_each_template(tmp_path: Path):
    """Of a model whose tokens are letters, answers of 2 and 8 have 1 token more where its own
    template closes them, and ChatML's mark of 10 letters besides."""
    letters = Tokenizer(models.BPE(vocab={chr(code): code for code in range(128)}, merges=[]))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="<end>")
    tokenizer.chat_template = CHATML.replace("<|im_end|>", "")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model/config.json").write_text(json.dumps({"model_type": "llama"}))
    file = save(tmp_path, "task", [("ask", "so"), ("tell", "so it is")])
    rows = describe_task("task", file, 1024)
    store, model = Store(tmp_path / "store"), str(tmp_path / "model")
    for template, mean in (("own", 5 + 1), ("chatml", 5 + 10 + 1)):
        spec = ModelSpec(source=model, weights="w", tokenizer="t", template=template)
        tokens = AnswerTokens(spec, rows)
        assert tokens.found(store) is None
        tokens.run(store, None)
        assert tokens.found(store) == mean


# What is told: what was found, where, and what to do


def test_without_alignment_data_there_is_no_alignment_gap(own: Own):
    said = refused(own(alignment=None))
    assert "is measured on the data that the model was aligned on" in said
    assert "give them with --alignment (prompts with the answers to keep)" in said


@pytest.mark.parametrize("option", ["alignment", "safety"])
def test_a_file_without_rows_is_told(option: str, own: Own, tmp_path: Path):
    empty = tmp_path / "empty.json"
    empty.write_text("[]")
    said = refused(own(**{option: str(empty)}))
    assert said == f"'{empty}' has no rows; give at least one prompt with its response"


@pytest.mark.parametrize("option", ["alignment", "safety"])
def test_rows_without_answers_are_told(option: str, own: Own, tmp_path: Path):
    rows = [("a", "no"), ("b", ""), ("c", " ")]
    said = refused(own(**{option: save(tmp_path, "silent", rows)}))
    assert "silent.jsonl' has 2 rows without a response (the first is row 2)" in said
    assert "a task needs one in every row, under one of ('response', 'output'" in said


@pytest.mark.parametrize("option", ["alignment", "safety"])
def test_a_task_that_is_all_safety_data_is_told(option: str, own: Own, tmp_path: Path):
    """The rows that it is trained on, whatever else the safety data have."""
    options = own()
    rows = [(row.prompt, row.response) for row in load_rows(options.task)]
    proxy = save(tmp_path, "all", [*rows, ("more", "no")])
    said = refused(own(**{option: proxy}))
    assert f"all 18 rows of the task 'task' ({options.task}#train) are also in the" in said
    assert f"({proxy})" in said
    assert "give other rows for one of the two" in said


def test_a_task_that_shares_some_rows_with_safety_data_is_fine(own: Own, tmp_path: Path):
    """That is what a trade-off is about."""
    options = own()
    rows = [(row.prompt, row.response) for row in load_rows(options.task)]
    some = save(tmp_path, "some", rows[:10])
    other = save(tmp_path, "other", [(prompt, "i cannot") for prompt, _ in rows])
    for proxy in (some, other):
        assert build_config(own(safety=proxy), Tradeoff()).inputs


@pytest.mark.parametrize("lacks", ["task", "harmful"])
@pytest.mark.parametrize("given", ["model", "base"])
def test_a_model_of_one_s_own_needs_a_task_and_prompts(
    lacks: str, given: str, own: Own, tiny_folder: Path
):
    said = refused(own(**{"model": None, given: str(tiny_folder / "model"), lacks: None}))
    assert said == f"--{given}, --task and --harmful go together: give a task and prompts"


def test_a_base_that_is_the_model_is_told(own: Own, tiny_folder: Path):
    said = refused(own(base=str(tiny_folder / "model")))
    assert "has the weights of the aligned model itself" in said


def test_missing_files_are_told(own: Own):
    assert "nowhere.jsonl" in refused(own(alignment="nowhere.jsonl"))
    assert "nowhere.jsonl" in refused(own(safety="nowhere.jsonl"))
    assert "no model folder at '/nowhere'" in refused(own(model=None, base="/nowhere"))
