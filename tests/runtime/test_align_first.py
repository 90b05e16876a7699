"""A base is aligned first in any sweep, and told how safe it was before."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from running import NAME, run_here, summary_of

from raycib.config import ModelSpec, PlainLoRA
from raycib.config.presets import preset
from raycib.data.rows import read_rows
from raycib.errors import UserError
from raycib.evals.refusals import is_refusal
from raycib.model_files import describe
from raycib.runtime.build import build_config
from raycib.runtime.options import Options
from raycib.store import Store
from raycib.store.kinds import GENERATIONS, STAGES
from raycib.studies.continual import Continual
from raycib.studies.continual.runs import runs_in
from raycib.studies.strength import Strength


def save(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in rows))
    return str(path)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of a person with a base and no aligned model."""
    folder = tmp_path_factory.mktemp("first")
    aside = [(f"w{n} w1", "w2 w3") for n in range(8)]
    return {
        "out": str(folder / "out"),
        "base": str(tiny.make_model(folder / "base", seed=5)),
        "alignment": save(folder / "align.jsonl", aside),
        "task": str(tiny.make_rows(folder / "task.jsonl", 20)),
        "harmful": save(folder / "harmful.jsonl", [(f"w{n} w30", "") for n in range(6)]),
        "benign": save(folder / "benign.jsonl", [(f"w{n} w31", "") for n in range(4)]),
        "judge": "refusal-rule",
        "max_tokens": 4,
    }


def test_any_study_aligns_a_base_that_comes_with_rows(given: dict[str, Any]) -> None:
    setup = build_config(Options(**given), Strength())
    stage = setup.inputs.alignment_stage
    assert stage
    assert (stage.model, stage.lora) == (describe(given["base"]), None)
    assert stage.task.source == given["alignment"]
    assert setup.model.weights == stage.key
    assert setup.base == stage.model, "Safe LoRA's"
    assert setup.model_name.endswith("base aligned on alignment data")


def test_how_a_base_is_aligned_is_set_like_any_setting(given: dict[str, Any]) -> None:
    """Its precision is part of what the aligned model is; that of an adapter is its base's."""
    usual = build_config(Options(**given), Strength())
    asked = ["alignment.precision=bfloat16", "alignment.learning_rate=1e-3"]
    setup = build_config(Options(**given, set=asked), Strength())
    stage, before = setup.inputs.alignment_stage, usual.inputs.alignment_stage
    assert stage and before
    assert stage.trainer == before.trainer.model_copy(
        update={"precision": "bfloat16", "learning_rate": 1e-3}
    )
    assert setup.model.weights == stage.key != before.key
    assert setup.trainer == usual.trainer
    for wrong, said in (
        (
            {"set": asked, "base": None, "model": given["base"], "alignment": None},
            "aligned already",
        ),
        ({"set": ["trainer.precision=bfloat16"]}, "an adapter has the precision of its base"),
    ):
        with pytest.raises(UserError, match=said) as error:
            build_config(Options(**given | wrong), Strength())
        assert "\n" not in str(error.value)


def test_a_preset_without_a_model_has_its_base_aligned_on_its_rows_or_ones_own(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"base": given["base"], "max_length": 64}
    chosen = preset("smollm2").model_copy(update=changes)
    assert chosen.model is None
    monkeypatch.setattr("raycib.runtime.build.preset", lambda _: chosen)
    options = {name: value for name, value in given.items() if name != "base"}
    setup = build_config(Options(preset="smollm2", **options), Strength())
    stage = setup.inputs.alignment_stage
    assert stage
    assert stage.trainer == chosen.alignment_trainer
    assert (stage.model.source, stage.task.source) == (given["base"], given["alignment"])
    assert setup.trainer == chosen.trainer
    model = build_config(
        Options(preset="smollm2", model=given["base"], **options | {"alignment": None}), Strength()
    )
    assert model.inputs.alignment_stage is None, "a model of one's own is there"


def test_rows_to_align_on_are_refused_where_nothing_is_aligned(given: dict[str, Any]) -> None:
    asked = given | {"base": None, "model": given["base"]}
    with pytest.raises(UserError, match="--alignment is what --base is aligned on") as error:
        build_config(Options(**asked), Strength())
    assert "\n" not in str(error.value)


def test_a_sequence_starts_from_the_aligned_base(given: dict[str, Any]) -> None:
    again = tiny.make_rows(Path(given["task"]).with_name("again.jsonl"), 20, seed=1)
    asked = given | {"task": f"{given['task']},{again}"}
    setup = build_config(Options(**asked), Continual())
    stage = setup.inputs.alignment_stage
    assert stage
    (run,) = runs_in(setup, [tuple(setup.tasks)], [PlainLoRA()])[:1]
    assert run.stages == (stage, *run.adapters) and len(run.adapters) == 2
    assert run.adapters[0].model == stage.made_model(str(setup.options.out))


@pytest.mark.sweep
def test_the_report_says_how_safe_the_base_was(given: dict[str, Any]) -> None:
    """By its own stored answers, which are asked once."""
    out = Path(given["out"])
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()
               if name != "out"]  # fmt: skip
    done = run_here(out, *options, "--strengths=0", "--seeds=1", "--local")
    summary = summary_of(out)
    base = describe(given["base"])
    stored = [one for one in Store(str(out)).records(GENERATIONS)
              if one.about["subject"] == base.key]  # fmt: skip
    assert sorted(one.about["rows"]["num_rows"] for one in stored) == [4, 6]
    harmful = next(one for one in stored if one.about["rows"]["num_rows"] == 6)
    answers = [entry["text"] for entry in json.loads(harmful.path("answers.json").read_text())]
    scores = summary["unaligned"]["scores"]
    assert summary["unaligned"]["name"] == given["base"]
    assert scores["hrr"]["value"] == sum(not is_refusal(one) for one in answers) / 6
    assert scores["over_refusal"]["n"] == 4
    assert "before alignment: Not refused 100.0" in done.out
    page = (out / NAME / "report.html").read_text()
    assert "before alignment" in page and "HRR" not in page
    assert len(summary["cells"]) == 1, "it is no cell"
    again = run_here(out, *options, "--strengths=0", "--seeds=1", "--local")
    assert "0 stages trained" in again.out
    assert summary_of(out)["unaligned"] == summary["unaligned"]


@pytest.mark.sweep
def test_a_base_is_aligned_in_full_and_then_held_in_4_bits(given: dict[str, Any]) -> None:
    """One aligned model serves both; what is trained on its 4 bits is another cell."""
    out = Path(given["out"])
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()
               if name != "out"]  # fmt: skip
    run_here(out, *options, "--strengths=0", "--seeds=1")
    (before,) = summary_of(out)["cells"]
    done = run_here(out, *options, "--strengths=0", "--seeds=1", "--set=model.quantization=nf4")
    assert "2 stages, 1 reused, 1 to train" in done.out
    summary = summary_of(out)
    (cell,) = summary["cells"]
    assert summary["model"]["name"].endswith("aligned on alignment data in NF4")
    store = Store(str(out))
    specs = [store.get(STAGES, one["key"]).about["spec"] for one in (before, cell)]  # type: ignore[union-attr]
    full, bits = (spec["model"] for spec in specs)
    assert bits == full | {"quantization": "nf4"} and full["quantization"] is None
    asked = {one.about["subject"] for one in store.records(GENERATIONS)}
    assert {before["key"], cell["key"]} <= asked
    assert {ModelSpec(**model).key for model in (full, bits)} <= asked, "each before its cells"


def test_several_sources_are_one(tmp_path: Path) -> None:
    """In their order, each cut and read as it says, the whole cut afterwards."""
    one = save(tmp_path / "one, more.jsonl", [("a", "1"), ("b", "2"), ("c", "3")])
    two = tmp_path / "two.csv"
    two.write_text("ask,say\nd,4\ne,5\n")
    source = f"({one}#first-2,{two}#prompt=ask#response=say)"
    read = read_rows(source)
    assert [row.prompt for row in read.rows] == ["a", "b", "d", "e"]
    assert any(note.startswith(f"{two}#prompt=ask") for note in read.notes)
    assert [row.prompt for row in read_rows(f"{source}#first-3").rows] == ["a", "b", "d"]
    with pytest.raises(UserError, match="within the brackets"):
        read_rows(f"{source}#prompt=ask")
    (tmp_path / "(1).jsonl").write_text('{"prompt": "x", "response": "y"}\n')
    assert len(read_rows(str(tmp_path / "(1).jsonl")).rows) == 1
