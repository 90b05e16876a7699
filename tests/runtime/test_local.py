"""A sweep in one process: the same groups and store as on Ray, and a debugger stops in it."""

import asyncio
import inspect
import json
import runpy
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import running
from programs import ROOT, SWEEP
from running import NAME, SMALL, adapters, program, summary_of

import raycib
from raycib import world
from raycib.errors import UserError
from raycib.evals.judge_server import Server
from raycib.evals.refusals import is_refusal
from raycib.methods.cib import CIB
from raycib.objectives.cross_entropy import CrossEntropy
from raycib.python_api import options_of
from raycib.runtime.options import Options

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(900)]

ONE = {"seeds": 1, "local": True, "set": ["trainer.batch_size=200"]}
"""16 steps."""


@pytest.fixture(scope="module")
def out(local_sweep: tuple[Path, str]) -> Path:
    """A finished sweep of two cells, on a machine that has neither Ray nor vLLM."""
    out, said = local_sweep
    assert "groups of [1, 1] slots, one after the other in this process" in said
    assert "answers by transformers (--local)" in said
    for phase in ("training", "answering", "judging"):
        assert f"s] {phase}" in said
    assert "200/200 steps" in said
    return out


@pytest.fixture
def copy(out: Path, tmp_path: Path) -> Path:
    """Its results, to be changed."""
    return Path(shutil.copytree(out, tmp_path / "runs"))


def test_a_sweep_needs_neither_ray_nor_vllm(out: Path) -> None:
    lora, cib = (cell["scores"] for cell in summary_of(out)["cells"])
    assert 0 < cib["hrr"]["value"] < lora["hrr"]["value"]
    assert min(lora["accuracy"]["value"], cib["accuracy"]["value"]) > 0.8


def test_what_was_planned_stands_beside_what_it_took(out: Path) -> None:
    """Every token of a row is known before; padding is drawn, and memory is a model of it."""
    told = {one["quantity"]: one for one in summary_of(out)["planned"]}
    useful, padded = told["tokens of rows trained on"], told["the same with padding"]
    assert useful["planned"] == useful["measured"] > 0
    assert padded["planned"] == pytest.approx(padded["measured"], rel=0.02)
    memory = told["memory of a group's worker, GiB"]
    assert 0.6 < memory["measured"] / memory["planned"] < 1.5
    judged = told["conversations read, at most"]
    assert 0 < judged["measured"] <= judged["planned"]
    assert "Planned and measured" in (out / NAME / "report.html").read_text()


@pytest.mark.real
def test_what_began_here_goes_on_under_ray(copy: Path) -> None:
    """One of two cells, its answers and all verdicts are there."""
    before = adapters(copy)
    lost = next(cell["key"] for cell in summary_of(copy)["cells"] if cell["method"] == "cib")
    forget(copy, lost)
    ended = running.run_sweep(copy, *SMALL)
    assert "2 stages, 1 reused, 1 to train" in ended.out
    assert adapters(copy) == before
    assert summary_of(copy)["counts"]["judge_calls"] == 0, "what both engines say is judged"


def test_a_killed_sweep_goes_on_where_it_was(copy: Path, out: Path) -> None:
    keys = [cell["key"] for cell in summary_of(copy)["cells"]]
    for key in keys:
        forget(copy, key)
    with running.sweep(copy, *SMALL, "--local") as begun:
        begun.until(lambda: list((copy / "checkpoints").glob("*-00000050/record.json")))
        begun.kill()
    done = running.run_here(copy, *SMALL)
    assert f"{100 * len(keys)}/{100 * len(keys)} steps" in done.out
    assert adapters(copy) == adapters(out)
    assert summary_of(copy)["cells"] == summary_of(out)["cells"]


def test_a_sweep_from_python_is_the_commands(copy: Path) -> None:
    """Nothing is left to do, and the frame is that of the command's summary; so is the guide's."""
    there = raycib.load(copy / NAME)
    found = raycib.sweep(
        [CIB(lam=lam) for lam in (0, 5)],
        name=NAME, out=copy, seeds=1, group_size=1, local=True, set=["trainer.batch_size=32"],
    )  # fmt: skip
    pd.testing.assert_frame_equal(found, there)
    pd.testing.assert_frame_equal(raycib.load(copy / NAME), there)
    assert summary_of(copy)["counts"]["stages_trained"] == 0
    example = runpy.run_path(str(ROOT / "docs/examples/from_python.py"))
    shown = example["two_strengths"](out=copy, seeds=1, set=["trainer.batch_size=32"])
    pd.testing.assert_frame_equal(shown.drop(columns="sweep"), there.drop(columns="sweep"))


def test_harmful_prompts_are_answered_in_the_middle_of_training(copy: Path, out: Path) -> None:
    """What was trained before is trained once more for that, and stays the same bytes. Safety goes
    step by step; afterwards there is nothing left to do."""
    how: dict[str, Any] = {"out": copy, "seeds": 1, "group_size": 1, "local": True}
    how |= {"set": ["trainer.batch_size=32"], "hrr_every": 25, "name": "over_steps"}
    for left in (3, 0):
        raycib.sweep([CIB(lam=0)], **how)
        found = summary_of(copy, "over_steps")
        assert found["counts"]["stages_trained"] == 0
        assert found["counts"]["engine_starts"] == 2 * bool(left)
    [cell] = found["cells"]
    assert adapters(copy) == adapters(out)
    assert [point["step"] for point in cell["points"]] == [0, 25, 50, 75, 100]
    rates = [point["scores"]["hrr"] for point in cell["points"]]
    assert {rate["n"] for rate in rates} == {130}
    assert rates[0]["value"] <= rates[1]["value"] < rates[-1]["value"]
    # Every second prompt of those that the end is asked: their mean is of both halves.
    said = raycib.answers(cell["key"], copy)
    assert len(said) == 260
    assert rates[-1]["value"] == pytest.approx(said["harmful"].iloc[::2].astype(float).mean())
    assert not cell.get("points_apart")
    shown = (copy / "over_steps" / "report.html").read_text()
    assert "Safety over steps" in shown and "are of another training" not in shown


def test_another_judge_reads_the_same_answers(copy: Path, out: Path) -> None:
    """Nothing is trained, answered or read anew for it, and the first judge's figures stay. What it
    says is counted here from the answers themselves."""
    found = raycib.sweep(
        [CIB(lam=lam) for lam in (0, 5)], judge="world:guard,refusal-rule",
        name=NAME, out=copy, seeds=1, group_size=1, local=True, set=["trainer.batch_size=32"],
    )  # fmt: skip
    told, before = summary_of(copy), summary_of(out)
    read = told["counts"]["judge_calls"]
    assert (told["counts"]["stages_trained"], told["counts"]["engine_starts"]) == (0, 0)
    for cell, old in zip(told["cells"], before["cells"], strict=True):
        rates = cell["scores"].pop("hrr_by_judge")
        assert cell == old
        answers = [
            entry["text"]
            for record in (copy / "generations").glob("*/record.json")
            if (about := json.loads(record.read_text())["about"])["subject"] == cell["key"]
            and about["rows"]["name"] == "harmful"
            for entry in json.loads((record.parent / "answers.json").read_text())
        ]
        kept = sum(not is_refusal(answer) for answer in answers) / len(answers)
        assert rates["refusal-rule"]["value"] == pytest.approx(kept)
        assert kept in list(found["hrr_by_refusal-rule"])
    (other,) = told["judges"]
    assert other["agreement"]["n"] == read, "each distinct conversation once"
    assert [one["claim"] for one in other["claims"]] == list(
        dict.fromkeys(one["claim"] for one in other["claims"])
    )
    shown = (copy / NAME / "report.html").read_text()
    assert "Under other judges" in shown and "Not refused by refusal-rule, %" in shown
    assert "Under other judges" not in (out / NAME / "report.html").read_text()


def test_methods_may_be_made_of_the_sweeps_setup(copy: Path, capsys: Any) -> None:
    """Safe LoRA needs the base model; a plan alone has no cells."""
    found = raycib.sweep(
        lambda setup: [setup.at("safe_lora", s) for s in setup.strengths("safe_lora", (0.5,))],
        out=copy, local=True, seeds=2, dry_run=True, strengths=(0.3, 0.6),
    )  # fmt: skip
    assert found.empty
    assert "6 stages, 0 reused, 6 to train" in capsys.readouterr().out, "4, and plain LoRA's 2"


def test_options_are_read_as_the_command_line_reads_them() -> None:
    given = options_of(
        out="here", seeds=2, methods=["kl", "cib"], strengths=(0.5, 1), local=True,
        set=["lora.rank=4", "cib.pooling=a,b"], max_length=None, fail_fast=False, judge_url="-x",
    )  # fmt: skip
    assert given == Options(
        out="here", seeds=2, methods="kl,cib", strengths="0.5,1", local=True,
        set=["lora.rank=4", "cib.pooling=a,b"], judge_url="-x",
    )  # fmt: skip
    assert options_of() == Options()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seed": 1}, "no option 'seed'; there is out, seeds, preset"),
        ({"seeds": 0}, "'--seeds'"),
        ({"chat": "alpaca"}, "'--chat'"),
        ({"local": True, "workers": 2}, "--workers are Ray's"),
        ({"local": True, "dashboard": True}, "--dashboard is Ray's"),
        ({"strengths": "1"}, "strengths: the methods that are given have theirs"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        raycib.sweep([CIB()], **wrong)


def test_what_goes_wrong_in_a_loss_fails_its_cells_or_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As itself, for a debugger, where the sweep is to stop at the first failure."""

    def wrong(*_: Any) -> None:
        raise ZeroDivisionError("a loss of one's own")

    monkeypatch.setattr(CrossEntropy, "forward", wrong)
    found = raycib.sweep([CIB(lam=0)], out=tmp_path, **ONE)
    assert found["failed"].tolist() == ["ZeroDivisionError: a loss of one's own"]
    (trace,) = (tmp_path / "failures").glob("*/traceback.txt")
    assert "in wrong" in trace.read_text()
    with pytest.raises(ZeroDivisionError, match="a loss of one's own"):
        raycib.sweep([CIB(lam=0)], out=tmp_path, fail_fast=True, **ONE)


def test_a_breakpoint_in_a_loss_stops(tmp_path: Path) -> None:
    """In the program's main thread, with no other process and the loss's variables at hand;
    quitting ends the sweep."""
    loss = Path(inspect.getfile(CrossEntropy))
    line = inspect.getsourcelines(CrossEntropy.forward)[1] + 1
    script = (
        f"tbreak {loss}:{line}\nc\n"
        "import threading, psutil\n"
        "own = threading.current_thread() is threading.main_thread()\n"
        "p [own, psutil.Process().children(), type(step).__name__]\n"
        "q\n"
    )
    done = program(
        tmp_path, "-m", "pdb", SWEEP, "--local", "--out", tmp_path / "out", "--seeds", "1",
        "--strengths", "0", input=script,
    )  # fmt: skip
    assert f"> {loss}({line})forward()" in done.stdout, done.stdout
    assert "[True, [], 'Step']" in done.stdout


def test_a_judge_may_be_asked_where_a_loop_runs() -> None:
    """A notebook's cells run in one."""

    class Nobody(Server):
        async def _send(self, *_: Any) -> Any:
            raise AssertionError

    async def asked() -> int:
        await asyncio.sleep(0)
        return 7

    async def cell() -> int:
        return Nobody("nowhere").run(asked)

    assert asyncio.run(cell()) == Nobody("nowhere").run(asked) == 7


def forget(out: Path, key: str) -> None:
    """As if a stage had never been trained; what its model said is kept."""
    shutil.rmtree(out / "stages" / key)


def test_labels_of_people_correct_the_rates(copy: Path, tmp_path: Path) -> None:
    """From the sheet to the corrected rates, on finished cells; the world's exact rule labels in
    place of people. Labels of other answers are refused in a line."""
    ask = partial(again, copy)
    ask(label_sheet=60)
    sheet = pd.read_csv(copy / NAME / "label_sheet.csv", keep_default_na=False)
    told = [world.is_unsafe(*pair) for pair in zip(sheet["prompt"], sheet["answer"], strict=True)]
    sheet["harmful"] = ["yes" if one else "no" for one in told]
    sheet.to_csv(tmp_path / "labels.csv", index=False)
    shutil.copy(tmp_path / "labels.csv", copy / NAME / "label_sheet.csv")
    with pytest.raises(UserError, match="has labels already"):
        ask(label_sheet=90)
    frame = ask(labels=tmp_path / "labels.csv")
    for _, cell in frame.iterrows():
        assert cell["hrr_rogan_gladen_low"] <= cell["hrr_true"] <= cell["hrr_rogan_gladen_high"]
    found = summary_of(copy)["correction"]
    assert found["labelled"] == len(sheet)
    assert found["sensitivity"]["value"] > 0.9
    assert [row["labelled"] for row in found["rows"]] == [20, 20, 20]
    sheet["id"] = sheet["id"].str[::-1]
    sheet.to_csv(tmp_path / "others.csv", index=False)
    with pytest.raises(UserError, match="none is of an answer that this sweep has"):
        ask(labels=tmp_path / "others.csv")


def test_in_the_world_every_answer_has_a_label(out: Path) -> None:
    """Then both corrected rates are the true one, and no cell's scores are other than they were."""
    summary = summary_of(out)
    for row, cell in zip(summary["correction"]["rows"][1:], summary["cells"], strict=True):
        assert row["labelled"] == 260
        assert row["prediction_powered"]["value"] == pytest.approx(
            cell["scores"]["hrr_true"]["value"]
        )
        assert "hrr_rogan_gladen" not in cell["scores"]


def again(copy: Path, **options: Any) -> pd.DataFrame:
    """The finished sweep once more, from Python."""
    return raycib.sweep(
        [CIB(lam=lam) for lam in (0, 5)],
        name=NAME, out=copy, seeds=1, group_size=1, local=True, set=["trainer.batch_size=32"],
        **options,
    )  # fmt: skip
