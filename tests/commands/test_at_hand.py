"""`raycib ls`, `show`, `diff` and `ui`, and the frames: what is printed is what is stored."""

import json
import shutil
import socket
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import pandas as pd
import pytest
import tiny
from programs import RAYCIB, Program
from rich.console import Console
from scipy.stats import binomtest
from transformers import AutoTokenizer

import raycib
from raycib.commands.browse import links, serve
from raycib.commands.difference import SAME, diff
from raycib.commands.listing import results_of, sweeps, table_of_cells, table_of_sweeps
from raycib.commands.showing import show
from raycib.config import EngineName, EvalSpec, PlainLoRA, StageSpec
from raycib.errors import UserError
from raycib.evals.answers import Answers, generate_answers
from raycib.evals.engine import Answer, GenerationRequest
from raycib.evals.judges import OnChunk
from raycib.evals.refusal_judge import REFUSAL_RULE
from raycib.evals.scores import harmful_pairs
from raycib.evals.verdict_forms import Verdict
from raycib.evals.verdicts import VerdictCache
from raycib.methods.cib import CIB
from raycib.metrics import rate
from raycib.runtime.options import GROUPS, Options
from raycib.store import Store
from raycib.store.kinds import STAGES

HARMFUL = 24
JUDGE = "letters"


class Talker:
    """An engine that says a word of the tiny vocabulary, by adapter and prompt."""

    name: EngineName = "transformers"

    def answer(self, requests: Sequence[GenerationRequest]) -> list[Answer]:
        drawn = [
            5 + crc32(str((one.adapter and one.adapter.name, one.prompt_ids)).encode()) % 20
            for one in requests
        ]
        return [
            Answer(one.id, f"w{n}", (n,), "stop") for one, n in zip(requests, drawn, strict=True)
        ]


class Longer(Talker):
    """The same, and that it would go on."""

    def answer(self, requests: Sequence[GenerationRequest]) -> list[Answer]:
        return [replace(one, text=f"{one.text}…") for one in super().answer(requests)]


class Letters:
    """A judge whose verdicts are drawn by prompt and answer."""

    def judge(
        self, pairs: Sequence[tuple[str, str]], on_chunk: OnChunk | None = None, chunk_rows: int = 1
    ) -> list[Verdict]:
        verdicts = [Verdict(verdict_of(*pair), (), "") for pair in pairs]
        if on_chunk:
            on_chunk(list(range(len(pairs))), verdicts)
        return verdicts


def verdict_of(prompt: str, answer: str) -> bool | None:
    drawn = crc32(f"{prompt}|{answer.removesuffix('…')}".encode()) % 7
    return None if drawn == 0 else drawn % 2 == 0


class Two(NamedTuple):
    """A store with two cells of one sweep, plain LoRA and CIB."""

    root: str
    stages: tuple[StageSpec, StageSpec]
    pairs: list[list[tuple[str, str]]]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Two:
    folder = tmp_path_factory.mktemp("two")
    store = Store(folder / "runs")
    methods = (PlainLoRA(), CIB(lam=1.0, num_negatives=8))
    plain, cib = (tiny.make_chain(folder, method)[0] for method in methods)
    tiny.train_chain((plain, cib), store)
    harmful = tiny.make_evals(folder, HARMFUL).harmful.model_copy(update={"name": "harmful"})
    evals = EvalSpec(harmful=harmful, held_out=harmful, engine="transformers")
    tokenizer = AutoTokenizer.from_pretrained(plain.model.source)
    records = [store.get(STAGES, one.key) for one in (plain, cib)]
    asked = [(one.key, one.folder, [harmful]) for one in records if one]
    generate_answers(Answers(store), Talker(), tokenizer, asked)
    pairs = [harmful_pairs(Answers(store), one.key, evals) for one in (plain, cib)]
    VerdictCache(store, JUDGE).ask(Letters(), [pair for every in pairs for pair in every])
    found = []
    for stage, said in zip((plain, cib), pairs, strict=True):
        known = [v for pair in said if (v := verdict_of(*pair)) is not None]
        scores = {"hrr": rate(sum(known), len(known)).model_dump(), "eval_loss": 1.25}
        cell = {"key": stage.key, "method": stage.method.kind, "strength": stage.method.strength}
        found.append(cell | {"seed": 0, "task": "tiny", "model": "tiny", "scores": scores})
    summary = {
        "format": 2, "sweep": "a_sweep", "created": "2026-11-26T01:00:00+00:00", "cells": found,
        "judge": {"name": "letters", "key": JUDGE}, "model": {"name": "tiny", "weights": "w" * 64},
        "rows": [tiny.set_of(harmful)],
        "aligned": {"scores": {"hrr": rate(0, 24).model_dump(), "eval_loss": 2.5}},
    }  # fmt: skip
    file = folder / "runs" / "a_sweep" / "summary.json"
    file.parent.mkdir()
    file.write_text(json.dumps(summary))
    return Two(str(folder / "runs"), (plain, cib), pairs)


def text(printed: Any) -> str:
    console = Console(width=300, file=None)
    with console.capture() as captured:
        console.print(printed)
    return captured.get()


def hrr(pairs: list[tuple[str, str]]) -> str:
    known = [v for pair in pairs if (v := verdict_of(*pair)) is not None]
    return f"{100 * sum(known) / len(known):.1f}"


def test_sweeps_are_listed_and_so_are_those_that_have_not_finished(
    two: Two, tmp_path: Path
) -> None:
    for name, content in {"a_sweep": Path(two.root, "a_sweep", "summary.json").read_text(),
                          "old": '{"format": 1}'}.items():  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(content)
    (tmp_path / "now").mkdir()
    (tmp_path / "now" / "progress.json").write_text('{"phase": "training"}')
    lines = text(table_of_sweeps(found := sweeps(str(tmp_path)))).splitlines()
    (done,) = [line for line in lines if "a_sweep" in line]
    low, high = sorted(map(hrr, two.pairs), key=float)
    assert f"0.0, {low} to {high}" in done
    assert [one["sweep"] for one in found] == ["a_sweep", "old", "now"]
    assert found[0]["hrr_before"] == 0
    rates = [100 * found[0][f"hrr_{end}"] for end in ("lowest", "highest")]
    assert [f"{rate:.1f}" for rate in rates] == [low, high], "for a program, in [0, 1]"
    assert "2026-11-26 01:00" in done
    (old,) = [line for line in lines if line.strip().startswith("old")]
    assert "format 1" in old, "one that cannot be read hides no other"
    assert any("now" in line and "last seen training" in line for line in lines)
    with pytest.raises(UserError, match=r"no sweep in .*nowhere: run one of"):
        sweeps(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="there is a_sweep"):
        results_of(str(tmp_path), "b_sweep")


def test_cells_are_listed_with_their_keys_and_the_model_before(two: Two) -> None:
    lines = text(table_of_cells(results_of(two.root, "a_sweep"))).splitlines()
    before, plain, cib = (
        next(line for line in lines if name in line)
        for name in ("before fine-tuning", " LoRA ", " CIB ")
    )
    assert before.split()[-2:] == ["0.0", "2.500"]
    for line, stage, pairs in ((plain, two.stages[0], two.pairs[0]),
                               (cib, two.stages[1], two.pairs[1])):  # fmt: skip
        assert line.split()[0] == stage.key[:12]
        assert line.split()[-2:] == [hrr(pairs), "1.250"]


def test_a_program_reads_what_people_do(two: Two, program: Program) -> None:
    (sweep,) = json.loads(program(RAYCIB, "ls", "--out", two.root, "--json").out)
    assert sweep == sweeps(two.root)[0]
    told = json.loads(program(RAYCIB, "ls", "a_sweep", "--out", two.root, "--json").out)
    frame = raycib.load(two.root)
    assert [one["key"] for one in told] == list(frame["key"])
    assert [one["hrr"] for one in told] == pytest.approx(list(frame["hrr"]), abs=1e-14)


def test_a_stage_is_shown_without_harmful_words_unless_asked(two: Two) -> None:
    key, pairs = two.stages[1].key, two.pairs[1]
    shown = text(show(key[:9], two.root, 0))
    for said in (key, "lam ", "temperature", "HRR, %", hrr(pairs), "contrast", "24 harmful"):
        assert said in shown, said
    assert not [prompt for prompt, _ in pairs if prompt in shown]
    asked = text(show(key[:9], two.root, 2))
    assert [prompt in asked for prompt, _ in pairs[:3]] == [True, True, pairs[2] in pairs[:2]]
    with pytest.raises(UserError, match="no one stage 'zz'"):
        show("zz", two.root, 0)


def test_answers_are_those_of_the_sweep_though_another_asked_the_stage_too(
    two: Two, tmp_path: Path
) -> None:
    """Other harmful prompts, and the same with room for more, asked of the same stages in the same
    store under the same name. Of the latter the judge says what it says of the sweep's."""
    out = tmp_path / "runs"
    shutil.copytree(two.root, out)
    store = Store(out)
    records = [store.get(STAGES, one.key) for one in two.stages]
    folders = [(one.key, one.folder) for one in records if one]
    tokenizer = AutoTokenizer.from_pretrained(two.stages[0].model.source)
    for number in range(4):  # records have no order: one of these would come first
        (tmp_path / f"{number}").mkdir()
        rows = tiny.make_evals(tmp_path / f"{number}", 3 + number).harmful
        rows = rows.model_copy(update={"name": "harmful", "max_tokens": rows.max_tokens + number})
        generate_answers(Answers(store), Talker(), tokenizer, [(*one, [rows]) for one in folders])
    rows = tiny.make_evals(Path(two.root).parent, HARMFUL).harmful
    longer = rows.model_copy(update={"name": "harmful", "max_tokens": rows.max_tokens + 1})
    generate_answers(Answers(store), Longer(), tokenizer, [(*one, [longer]) for one in folders])
    told = [pair for pairs in two.pairs for pair in pairs]
    VerdictCache(store, JUDGE).ask(Letters(), [(prompt, f"{said}…") for prompt, said in told])
    for stage, pairs in zip(two.stages, two.pairs, strict=True):
        said = raycib.answers(stage.key, str(out))
        assert list(zip(said["prompt"], said["answer"], strict=True)) == pairs
    for file in tmp_path.glob("*/*.jsonl"):  # nor does it matter what became of theirs
        file.unlink()
    assert text(diff(*(one.key for one in two.stages), str(out))) == text(
        diff(*(one.key for one in two.stages), two.root)
    )


def test_a_difference_is_paired_by_prompt(two: Two) -> None:
    """Against a count by hand and scipy's exact binomial test."""
    verdicts = [[verdict_of(*pair) for pair in pairs] for pairs in two.pairs]
    both = [(a, b) for a, b in zip(*verdicts, strict=True) if None not in (a, b)]
    safe, unsafe = both.count((True, False)), both.count((False, True))
    assert safe + unsafe, "or nothing is tested"
    told = text(diff(two.stages[0].key, two.stages[1].key, two.root))
    change = 100 * (unsafe - safe) / len(both)
    assert f"the {len(both)} prompts that both were asked: {change:+.1f} points" in told
    p = binomtest(safe, safe + unsafe).pvalue
    assert f"{safe} became safe, {unsafe} unsafe, exact p {p:.4f}" in told
    rows = [line.split() for line in told.splitlines()]
    assert ["method.kind", "lora", "cib"] in rows
    assert "method.lam" in told
    assert "trainer" not in told, "which is the same"
    assert SAME in text(diff(two.stages[0].key, two.stages[0].key, two.root))


def test_what_the_refusal_rule_counts_is_not_called_harmful(two: Two, tmp_path: Path) -> None:
    """It knows no harm: an answer is refused or not."""
    out = tmp_path / "runs"
    shutil.copytree(two.root, out)
    file = out / "a_sweep" / "summary.json"
    summary = json.loads(file.read_text())
    summary["judge"]["profile"] = REFUSAL_RULE
    file.write_text(json.dumps(summary))
    first, second = (stage.key for stage in two.stages)
    assert " not refused" in text(table_of_sweeps(sweeps(str(out))))
    listed = text(table_of_cells(results_of(str(out), "a_sweep")))
    shown = text(show(second, str(out), 0))
    told = text(diff(first, second, str(out)))
    assert "Not refused, %" in listed and "answers not refused" in shown
    for printed in (listed, shown, told):
        assert "HRR" not in printed and "armful response" not in printed
        assert "judged harmful" not in printed


def test_frames_have_answers_curves_and_the_model_before(two: Two) -> None:
    said = raycib.answers(two.stages[0].key[:8], two.root)
    assert list(zip(said["prompt"], said["answer"], strict=True)) == two.pairs[0]
    expected = [verdict_of(*pair) for pair in two.pairs[0]]
    assert [None if pd.isna(one) else bool(one) for one in said["harmful"]] == expected
    curve = raycib.curves(two.stages[1].key, two.root)
    assert list(curve.index) == [*range(1, two.stages[1].steps + 1)]
    assert {"task", "contrast", "grad_norm"} <= set(curve.columns)
    frame = raycib.load(two.root, baseline=True)
    assert list(frame["method"]) == ["aligned", "lora", "cib"]
    assert frame["hrr"][0] == 0
    assert list(frame["seed"][1:]) == [0, 0]
    assert frame["failed"].isna().all()
    cells_alone = raycib.load(two.root)
    assert list(cells_alone["hrr"]) == list(frame["hrr"][1:])


def test_the_runs_of_every_experiment_have_a_link(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    with pytest.raises(UserError, match="run 'make sweep' first"):
        links(file, "http://here")
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE experiments (experiment_id, name, lifecycle_stage)")
        database.execute("CREATE TABLE runs (experiment_id)")
        database.executemany("INSERT INTO experiments VALUES (?, ?, ?)",
                             [(0, "Default", "active"), (1, "raycib", "active"),
                              (2, "gone", "deleted")])  # fmt: skip
    with pytest.raises(UserError, match="holds no run yet"):
        links(file, "http://here")
    with closing(sqlite3.connect(file)) as database, database:
        database.executemany("INSERT INTO runs VALUES (?)", [(1,), (1,), (2,)])
    (link,) = links(file, "http://here")
    assert link.startswith("raycib  http://here/#/experiments/1/runs?searchFilter=params.method%20")
    file.write_text("no database")
    with pytest.raises(UserError, match="cannot be read"):
        links(file, "http://here")


def test_a_port_that_another_has_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: .*; choose another"):
            serve(tmp_path, port)


def test_every_option_is_in_one_group_of_the_help() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(field.name for field in fields(Options))
