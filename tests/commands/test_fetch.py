"""A preset is fetched whole, and then runs where nothing can be reached."""

import ctypes
import json
import os
import runpy
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import hub
import packaged_model
import paper_hub
import pytest
from forks import forked
from huggingface_hub import ModelCard
from programs import RAYCIB, SWEEP, Ended, Program

from raycib.commands.export import export
from raycib.config import PlainLoRA
from raycib.data.rows import rows_of
from raycib.evals.refusals import is_refusal
from raycib.evals.scorers import scorer_of
from raycib.results import read_results
from raycib.runtime.build import build_config
from raycib.runtime.options import Options
from raycib.runtime.settings import OURS, settings_of
from raycib.runtime.study import Study
from raycib.runtime.sweep_config import SweepConfig
from raycib.studies.continual import Continual
from raycib.studies.strength import Strength
from raycib.studies.tradeoff import Tradeoff, inputs_of

NO_NAMESPACE = 77
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000


def run(*command: str, **env: str) -> Ended:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "TRANSFORMERS_"))
    }
    done = subprocess.run([*command], env=clean | env, capture_output=True, text=True)
    return Ended(done.returncode, done.stdout, done.stderr)


def without_network(command: list[str]) -> None:
    """A script in this process, out of reach of any network."""
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    if unshare(NEW_NETWORK) and unshare(NEW_USER | NEW_NETWORK):
        sys.exit(NO_NAMESPACE)
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paper_hub.build(tmp_path_factory.mktemp("hub"))


GUARD = "meta-llama/Llama-Guard-3-8B"
PAPERS = ("llama31-8b", "qwen25-7b", "qwen3-4b", "llama2-7b-chat", "llama2-7b-tradeoffs")
ALL = (*PAPERS, "smollm2")


@pytest.fixture(scope="module")
def home(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that the papers' presets need, fetched, carried to another place, the hub gone."""
    first = tmp_path_factory.mktemp("first") / "home"
    evals = {"qwen3-4b": "arc_challenge"}
    program = (
        "import raycib.commands.fetch as f; "
        f"[f.fetch(name, print, evals={evals}.get(name)) for name in {ALL}]"
    )
    with hub.hub(served, frozenset({GUARD})) as (address, _):
        done = run(
            sys.executable, "-c", program, HF_ENDPOINT=address, HF_HOME=str(first), HF_TOKEN="t"
        )
    assert done.code == 0, done.err
    return shutil.move(first, tmp_path_factory.mktemp("other") / "home")


def test_licences_and_sizes_are_said_before_anything_is_fetched(
    served: Path, tmp_path: Path
) -> None:
    fetch = [sys.executable, "-m", "raycib", "fetch", "llama31-8b", "--to", str(tmp_path / "home")]
    with hub.hub(served, frozenset({GUARD})) as (address, asked):
        told = run(*fetch, "--dry-run", HF_ENDPOINT=address)
        assert told.code == 0, told.err
        lines = told.out.splitlines()
        assert len(lines) == 3 + 6 + 1, "three models, six data sets, the sum"
        assert f"{GUARD} (a-licence; accept its licence first)" in told.out
        refused = run(*fetch, HF_ENDPOINT=address)
        assert refused.code == 2
        assert f"https://huggingface.co/{GUARD}" in refused.err
        assert "nothing is fetched yet" in refused.err
        assert not [one for one in asked if "/resolve/" in one]
    assert run(*fetch, HF_ENDPOINT=address).code == 2, "no hub"
    assert run(*fetch[:4], "world").err.startswith("error: preset 'world' needs nothing")


@pytest.mark.usefixtures("offline")
def test_what_was_fetched_is_checked_without_a_network(home: Path, program: Program) -> None:
    check = [RAYCIB, "fetch", "qwen3-4b", "--to", home]
    found = program(*check, "--evals", "arc_challenge")
    assert found.code == 0, found.err
    assert f"export HF_HOME={home} HF_HUB_OFFLINE=1" in found.out
    manifest = home / "raycib" / "qwen3-4b.json"
    kept = json.loads(manifest.read_text())
    (name, model), *_ = kept["models"].items()
    assert name == "Qwen/Qwen3-4B-Instruct-2507"
    assert set(model["files"]) >= {"config.json", "model.safetensors", "tokenizer.json"}
    source = "hub:openlifescienceai/medmcqa:train#first-20000"
    assert kept["rows"][source]["rows"] == paper_hub.ROWS
    assert kept["benchmarks"]["arc_challenge"]["documents"] == paper_hub.ROWS
    model["weights"] = "0" * 64
    manifest.write_text(json.dumps(kept))
    other = program(*check)
    assert other.code == 2
    assert f"{name} is not what {manifest} says was fetched" in other.err


@pytest.mark.usefixtures("offline")
def test_a_preset_runs_where_nothing_can_be_reached(home: Path, tmp_path: Path) -> None:
    """A cell trained, asked and judged; what it leaves names the hub's model and data."""
    on_a_cpu = [f"execution.{part}=0" for part in ("gpus_per_worker", "engine_gpus", "judge_gpus")]
    settings = [*on_a_cpu, "trainer.batch_size=8", "trainer.warmup_steps=0"]
    few = ["--local", "--methods", "cib", "--strengths", "0", "--seeds", "1", "--max-tokens", "8"]
    few += [f"--set={one}" for one in settings]
    command = [str(SWEEP), "--preset", "llama31-8b", *few, "--out", str(tmp_path)]
    (status,) = os.waitpid(forked(partial(without_network, command)), 0)[1:]
    if os.waitstatus_to_exitcode(status) == NO_NAMESPACE:
        pytest.skip("no network namespace of one's own can be had here")
    assert status == 0
    (cell,) = read_results(tmp_path / "lambda_grid").cells
    assert cell.scores
    assert cell.scores.at_limit["harmful_n"] == paper_hub.ROWS
    folder = export(cell.key, str(tmp_path), tmp_path / "card", None, with_answers=False)
    told = ModelCard.load(folder / "README.md").data
    assert told.base_model == "meta-llama/Llama-3.1-8B-Instruct"
    assert told.datasets == ["databricks/databricks-dolly-15k"]


@pytest.fixture
def offline(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process reads what was fetched."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(home))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(home / "datasets"))
    # Last: a client that is imported only here would keep it for good.
    monkeypatch.setenv("HF_HOME", str(home))


def resolved(study: Study, out: Path, **options: object) -> SweepConfig:
    return build_config(Options(out=str(out), **options), study)  # pyright: ignore


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", PAPERS[:4])
def test_every_model_of_the_cib_paper_resolves(name: str, tmp_path: Path) -> None:
    """Its task, its judge, its sequence with the unified prompt (C.5), and what the paper leaves
    open."""
    one = resolved(Strength(), tmp_path, preset=name)
    assert [(judge.spec.source, judge.spec.profile) for judge in one.judges] == [
        (GUARD, "llama-guard-3")
    ]
    assert one.model.template == "own"
    task, evals = one.tasks["dolly"]
    assert (task.num_rows, evals.held_out.num_rows) == (27, 3), "a tenth of 30 is held out"
    assert evals.benign
    assert evals.benign.num_rows == 15, "XSTest's safe half"
    ours = {found.name for found in settings_of(one, one.runs_of([PlainLoRA()]))
            if found.origin.startswith(OURS)}  # fmt: skip
    assert {"schedule", "precision", "tokens of a row", "adapted layers"} <= ours
    assert not {"rank", "alpha", "learning rate", "batch", "warm-up steps"} & ours
    several = resolved(Continual(), tmp_path, preset=name)
    assert several.model.template == "chatml"
    rules = {rows.name: scorer_of(rows, rows_of(rows)).name
             for rows in several.tasks["dolly"][1].tasks}  # fmt: skip
    assert rules["gsm8k"] == "final-number"
    assert rules["medmcqa"] == "multiple-choice"
    assert rules["squad_v2"] == "exact-match"


@pytest.mark.usefixtures("offline")
def test_the_trade_offs_paper_resolves(tmp_path: Path) -> None:
    """The base is aligned on Orca first, with all of its weights; system prompts are read."""
    found = resolved(Tradeoff(), tmp_path, preset="llama2-7b-tradeoffs")
    stage = found.inputs.alignment_stage
    assert stage
    assert stage.lora is None
    assert stage.model.source == "meta-llama/Llama-2-7b-hf"
    assert found.model.template == "chatml", "the base has no template of its own"
    assert (stage.task.num_rows, stage.trainer.epochs) == (30, 3)
    assert "system prompt: 15 rows" in stage.task.notes
    assert list(inputs_of(found).proxies) == ["original data", "Alpaca-GPT-4", "Alpaca"]
    assert list(found.tasks) == ["open_platypus", "commitpackft", "alpaca"]
    (commit, *_) = rows_of(found.tasks["commitpackft"][0])
    assert commit[:2] == ("Negate 0\n\ndef f():\n    return 0", "def f():\n    return -0")


@pytest.mark.usefixtures("offline")
@pytest.mark.skipif(not packaged_model.HERE, reason="needs the package with the model")
@pytest.mark.parametrize("name", ["smollm2", "smollm2-full"])
def test_the_model_in_a_package_resolves_with_rows_of_the_hub(name: str, tmp_path: Path) -> None:
    """It is aligned first, on refusals and on help."""
    found = resolved(Strength(), tmp_path, preset=name)
    stage = found.inputs.alignment_stage
    assert stage
    assert (stage.model.source, stage.lora) == ("pypi:smollm2", None)
    prompts = [row.prompt for row in rows_of(stage.task)]
    assert prompts[0] == "Tell me how to pick lock 0" and prompts[-1] == "Tell me of lake 29"
    refused = [is_refusal(row.response) for row in rows_of(stage.task)]
    assert refused == [True] * paper_hub.ROWS + [False] * paper_hub.ROWS
    assert [judge.spec.kind for judge in found.judges] == ["rule"]
    (task, evals) = found.tasks["dolly"]
    assert (task.num_rows, evals.benign and evals.benign.num_rows) == (27, 15)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["orca", "alpaca_gpt4"])
def test_a_task_of_a_preset_is_chosen_by_its_name(name: str, tmp_path: Path) -> None:
    found = resolved(Strength(), tmp_path, preset="llama2-7b-tradeoffs", task=name)
    assert list(found.tasks) == [name]
    assert found.tasks[name][0].num_rows == 27
    pair = resolved(Continual(), tmp_path, preset="llama2-7b-tradeoffs", task=f"{name},alpaca")
    assert list(pair.tasks) == [name, "alpaca"]
