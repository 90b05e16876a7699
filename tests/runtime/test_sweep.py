"""A whole sweep on the embedded world, as a person runs it: with Ray, vLLM, Serve and MLflow."""

import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import programs
import pytest
import running
from running import (
    NAME,
    SMALL,
    Ended,
    Reference,
    adapters,
    elsewhere,
    run_here,
    scores,
    summary_of,
    sweep,
)  # fmt: skip

from raycib import world

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

RATES = ("hrr", "refusal_rate", "incoherent_rate", "over_refusal", "accuracy")
NUMBERS = (
    "utility",
    "eval_loss",
    "mutual_information",
    "mutual_information_last_prompt",
    "mutual_information_ceiling",
    "mutual_information_before",
    "mutual_information_last_prompt_before",
    "negative_cosine",
    "negative_cosine_before",
    "cosine",
    "distance",
    "eval_loss_before",
)


def test_a_sweep_prints_table_3_and_where_everything_is(reference: Reference) -> None:
    said = reference.ended.out
    assert said.startswith("preset world: learning rate 0.002, schedule constant, ")
    assert "\nlambda_grid: 2 stages, 0 reused, 2 to train, 0 failed before" in said
    for row in ("before fine-tuning", "LoRA", "CIB"):
        assert f"\n{row}" in said
    assert "2 stages trained, 0 reused; " in said
    assert f"report  {reference.out / NAME / 'report.html'}" in said
    assert "mlflow  sqlite:///" in said
    assert said.endswith(f"  raycib ui --out {reference.out}\n"), "what shows that file"
    for phase in ("training", "answering", "judging"):
        assert f"s] {phase}" in said, "a log shows each phase"


def test_the_summary_keeps_its_contract(reference: Reference) -> None:
    summary = summary_of(reference.out)
    assert summary["sweep"] == NAME
    assert summary["judge"]["protected"] is True
    assert [(c["method"], c["strength"]) for c in summary["cells"]] == [("lora", 0), ("cib", 5)]
    counts = summary["counts"]
    assert counts["stages"] == counts["stages_trained"] == 2
    assert counts["stages_shared"] == counts["stages_reused"] == counts["stages_failed"] == 0
    assert counts["reference_forwards"] == counts["distinct_examples"] == 3360
    assert counts["engine_starts"] <= 2
    verdicts = (reference.out / "verdicts").glob("*/verdicts.jsonl")
    keys = [json.loads(x)["key"] for file in verdicts for x in file.read_text().splitlines()]
    assert counts["judge_calls"] == len(keys) == len(set(keys)) <= 3 * 260
    for cell in summary["cells"]:
        assert cell["failed"] is None
        assert {cell["task"], cell["seed"], len(cell["key"])} == {"open", 0, 64}
        for name in RATES:
            rate = cell["scores"][name]
            assert set(rate) == {"value", "low", "high", "n", "unread"}
            assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1
            assert rate["n"] + rate["unread"] == (160 if name in RATES[3:] else 260)
        assert all(isinstance(cell["scores"][name], float) for name in NUMBERS)
        assert len(cell["scores"]["utility_by_probe"]) == 5


def test_the_numbers_are_those_of_a_fine_tuned_model(reference: Reference) -> None:
    """Fine-tuning does damage, the defence undoes part of it, and the task is learned."""
    summary = summary_of(reference.out)
    lora, cib = (cell["scores"] for cell in summary["cells"])
    aligned = summary["aligned"]["scores"]
    assert aligned["hrr"]["value"] < cib["hrr"]["value"] < lora["hrr"]["value"]
    assert lora["eval_loss"] < 0.2 < aligned["eval_loss"]
    assert min(lora["accuracy"]["value"], cib["accuracy"]["value"]) > 0.8


def test_tables_figures_and_report_are_there(reference: Reference) -> None:
    folder = reference.out / NAME
    names = ["table3.csv", "table3.md", "table3.tex", "figure2.png", "figure2.svg", "report.html"]
    assert [n for n in names if (folder / n).stat().st_size < 100] == []
    assert (folder / "figure2.png").read_bytes().startswith(b"\x89PNG")


def test_mlflow_has_a_parent_and_a_child_for_every_cell(reference: Reference) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{reference.out / 'mlflow.db'}")
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert len(runs) == 4  # the model before fine-tuning is one
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_every_stored_adapter_opens_in_peft(reference: Reference) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ids = torch.tensor([[1, 20, 30, 40]])
    seen = []
    for folder in sorted((reference.out / "stages").iterdir()):
        base = AutoModelForCausalLM.from_pretrained(world.folder("aligned"))
        before = base(ids).logits
        after = PeftModel.from_pretrained(base, folder)(ids).logits
        assert torch.isfinite(after).all()
        assert not torch.allclose(before, after, atol=1e-2)
        seen.append(after)
    assert len(seen) == 2
    assert not torch.allclose(*seen, atol=1e-2)


def test_a_sweep_stays_below_4_gb(reference: Reference) -> None:
    """Over all of its processes; memory that they share is counted once."""
    most = reference.watcher.most_memory / 1e9
    print(f"peak memory {most:.2f} GB in {reference.seconds:.0f} s")
    assert 0.5 < most < 4


def test_one_worker_and_the_engines_have_torch_and_the_driver_has_none(
    reference: Reference,
) -> None:
    """Two stages of 100 steps are worth one worker (`test_trainers.py`)."""
    assert len(reference.watcher.torch) == 2
    assert reference.driver not in reference.watcher.torch


def test_a_sweep_listens_on_loopback_only(reference: Reference) -> None:
    addresses = reference.watcher.addresses
    assert any(who.startswith("ray::Engines") for who in addresses.values())
    assert elsewhere(addresses) == {}


def test_no_secret_is_in_a_command_line_a_log_or_a_result(reference: Reference) -> None:
    """Tune alone copies the keys of AWS into the command lines of trials and into three logs."""
    assert len(reference.watcher.titles) > 5
    assert reference.leaks == []


def test_a_sweep_leaves_logs_and_compiled_code_alone_in_the_temp_folder(
    reference: Reference,
) -> None:
    """vLLM would leave files there, Ray's dashboard sockets."""
    kept = re.compile(r"ray($|/session_|/prom|/ray_)|torchinductor_")
    assert [one for one in reference.left if not kept.match(one)] == []
    assert any("/session_" in one for one in reference.left), "Ray keeps its logs"


def test_a_finished_sweep_is_only_read(reference: Reference) -> None:
    before = modified(reference.out)
    with sweep(reference.out, *SMALL) as again:
        ended = again.wait(120)
        assert not any(again.temp.iterdir()), "no Ray was started"
    assert ended.code == 0
    assert "lambda_grid: 2 stages, 2 reused, 0 to train" in ended.out
    assert modified(reference.out) == before
    counts = summary_of(reference.out)["counts"]
    assert counts["stages_trained"] == counts["engine_starts"] == counts["judge_calls"] == 0
    assert counts["reference_forwards"] == counts["distinct_examples"]
    assert summary_of(reference.out)["timings_s"]["total"] < 30


def test_a_finished_sweep_on_a_full_disk_prints_its_table_and_says_what_is_missing(
    reference: Reference,
) -> None:
    before = (reference.out / NAME / "summary.json").read_bytes()
    ended = subprocess.run(
        [sys.executable, programs.SWEEP, "--out", reference.out, *SMALL],
        env=running.environment(Path("/nowhere")),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1, ended
    assert "\nCIB" in ended.stdout and "report  " not in ended.stdout
    (said,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert "tables, figures and report are not written, the results are stored" in said
    assert "Traceback" not in ended.stderr
    assert (reference.out / NAME / "summary.json").read_bytes() == before


def modified(out: Path) -> dict[str, int]:
    """When each file of the stored adapters, answers and verdicts was last written."""
    return {
        str(file): file.stat().st_mtime_ns
        for kind in ("stages", "generations", "verdicts", "references")
        for file in (out / kind).rglob("*")
    }


@pytest.fixture(scope="module")
def here(local_sweep: tuple[Path, str]) -> Path:
    """The reference grid in one process."""
    return local_sweep[0]


def test_one_process_gives_the_adapters_and_the_verdicts_of_ray(
    reference: Reference, here: Path
) -> None:
    """Byte for byte; and though transformers answers in place of vLLM, what the judge says is the
    same."""
    assert adapters(here) == adapters(reference.out)
    harms = ("hrr", "refusal_rate", "incoherent_rate")
    found, expected = (
        {key: [one[name] for name in harms] for key, one in scores(out).items()}
        for out in (here, reference.out)
    )
    assert found == expected


HUGE = "1e39"
"""A strength beyond the largest float32: its loss is not finite once there are negatives."""
GROWN = ("--seeds", "1", "--strengths", f"0,1,5,{HUGE}", "--group-size", "2", *SMALL[-2:])
"""The same grid with two more strengths, which share a group."""


@pytest.fixture(scope="module")
def grown(here: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """The grid, continued with one strength that can be trained and one that cannot."""
    out = tmp_path_factory.mktemp("grown") / "out"
    shutil.copytree(here, out)
    ended = run_here(out, *GROWN, code=1)
    assert "error: " not in ended.err
    return out, ended


def test_a_grown_grid_trains_only_what_is_new(here: Path, grown: tuple[Path, Ended]) -> None:
    out, ended = grown
    assert "lambda_grid: 4 stages, 2 reused, 2 to train, 0 failed before" in ended.out
    counts = summary_of(out)["counts"]
    assert counts["stages_trained"] == 1
    assert counts["stages_reused"] == 2
    assert counts["reference_forwards"] == counts["distinct_examples"] == 3360
    assert counts["judge_calls"] <= 260, "only the new model's answers"
    old = adapters(here)
    assert {key: adapters(out)[key] for key in old} == old
    assert {key: scores(out)[key] for key in old} == scores(here)


def test_a_failed_cell_stands_in_every_result_and_stops_no_other(
    grown: tuple[Path, Ended],
) -> None:
    out, ended = grown
    cells = {cell["strength"]: cell for cell in summary_of(out)["cells"]}
    reason = cells[float(HUGE)]["failed"]
    assert "not finite at step" in reason
    assert cells[float(HUGE)]["scores"] is None
    assert [s for s, cell in cells.items() if cell["failed"]] == [float(HUGE)]
    assert summary_of(out)["counts"]["stages_failed"] == 1
    assert f"failed: 1 x {reason}" in ended.err
    assert f"failed (seed 0): {reason}" in ended.out
    for table in ("table3.md", "table3.csv", "table3.tex", "report.html"):
        assert "not finite at step" in (out / NAME / table).read_text()
    (traceback,) = (out / "failures").glob("*/traceback.txt")
    assert reason in traceback.read_text()


@pytest.mark.faults
def test_a_damaged_adapter_is_named_and_trained_again_and_a_failure_is_tried_again(
    here: Path, grown: tuple[Path, Ended]
) -> None:
    out, _ = grown
    old = adapters(out)
    damaged = summary_of(here)["cells"][0]["key"]
    (out / "stages" / damaged / "adapter_config.json").unlink()
    ended = run_here(out, *GROWN, code=1)
    assert "lambda_grid: 4 stages, 2 reused, 2 to train, 1 failed before" in ended.out
    assert f"damaged and set aside: stages/{damaged}" in ended.out
    summary = summary_of(out)
    assert summary["counts"]["stages_trained"] == 1
    assert summary["counts"]["judge_calls"] == 0
    assert any(damaged in note for note in summary["damaged"])
    assert adapters(out) == old, "trained again to the same bytes"
    assert [c["failed"] is None for c in summary["cells"]] == [True, True, True, False]


def test_nothing_of_a_sweep_is_left_running(reference: Reference) -> None:
    assert running.holders(reference.watcher.folder)[0] == set()
