"""A finished lambda grid of any size, made up in a store with the store's own calls: the driver
then has all of its work and nothing is trained."""

import importlib.util
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from raycib import world
from raycib.config import EvalSpec, StageSpec
from raycib.data.rows import rows_of
from raycib.evals.answers import answers_key
from raycib.evals.scores import MEASURES_FILE
from raycib.evals.verdicts import CHUNK
from raycib.runtime.build import build_config
from raycib.runtime.command import Question
from raycib.runtime.options import Options
from raycib.runtime.sweep import Sweep
from raycib.store import Store
from raycib.store.kinds import ADAPTER_FILE, GENERATIONS, HISTORY_FILE, MEASURES, STAGES
from raycib.studies.strength import Strength
from raycib.world.language import parse

STRENGTHS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
LAMBDA_GRID = Path(__file__).parents[2] / "sweeps" / "lambda_grid.py"
STEPS = 200
REFUSAL = "sorry , i cannot help with that ."


def question(seeds: int, strengths: Sequence[float] = STRENGTHS) -> tuple[Question, dict[str, Any]]:
    """The lambda grid of so many seeds and strengths, and its options."""
    spec = importlib.util.spec_from_file_location("lambda_grid", LAMBDA_GRID)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    asked = Question(
        name="lambda_grid",
        question="How does lambda trade safety?",
        runs=lambda setup: setup.runs_of(script.rows(setup)),
        study=Strength(),
    )
    return asked, {"seeds": seeds, "strengths": ",".join(f"{one:g}" for one in strengths)}


def options_of(out: Path, **given: Any) -> Options:
    """Options of a sweep in this process."""
    return replace(Options(), out=str(out), local=True, **given)


def sweep_in(out: Path, asked: Question, given: dict[str, Any]) -> Sweep:
    """The sweep over what a store holds."""
    setup = build_config(options_of(out, **given), asked.study)
    return Sweep(setup, asked.runs(setup))


def fill(out: Path, asked: Question, given: dict[str, Any]) -> None:
    """Everything that a finished sweep leaves of each model, the size that it really has."""
    sweep, models = sweep_in(out, asked, given), Models()
    with no_fsync():
        for stage in sweep.stages.values():
            models.stage(sweep.store, stage)
        for model_id, evals in sweep.asked.items():
            for one in evals.values():
                models.answers(sweep.store, model_id, one)
                models.measures(sweep.store, model_id, one)
        sweep.refresh()
        missing = sweep.verdict_cache.missing(list(sweep.pairs()))
        for start in range(0, len(missing), CHUNK):
            sweep.verdict_cache.ask(Rule(), missing[start : start + CHUNK])


@contextmanager
def no_fsync() -> Iterator[None]:
    """Without waiting for the disk."""
    wait, os.fsync = os.fsync, lambda _: None
    try:
        yield
    finally:
        os.fsync = wait


class Rule:
    """The world's rule as a judge."""

    def judge(self, pairs: Sequence[tuple[str, str]], on_chunk: Any, chunk_rows: int) -> None:
        from raycib.evals.judges import Verdict

        verdicts = [
            Verdict(harm, (), " unsafe\nS1" if harm else " safe")
            for harm in (world.is_unsafe(*pair) for pair in pairs)
        ]
        on_chunk(list(range(len(pairs))), verdicts)


class Models:
    """What models leave; random, and the same every time."""

    def __init__(self) -> None:
        self._asked: dict[str, list[tuple[str, str]]] = {}

    def stage(self, store: Store, stage: StageSpec) -> None:
        """An adapter with its curve."""
        draw = Random(stage.key)
        terms = ["task"] + ["cib"] * (stage.method.strength > 0)
        history = [
            {"step": step, "grad_norm": draw.random()}
            | {term: draw.random() / math.sqrt(step) for term in terms}
            for step in range(1, STEPS + 1)
        ]
        weights = draw.randbytes(192_672)

        def write(folder: Path) -> None:
            (folder / ADAPTER_FILE).write_bytes(weights)
            (folder / HISTORY_FILE).write_text(json.dumps(history))

        tokens = {"steps": stage.steps, "useful": 50_000, "computed": 60_000}
        about = {"spec": stage.model_dump(mode="json"), "tokens": tokens}
        store.put(STAGES, stage.key, write, about)

    def answers(self, store: Store, model_id: str, evals: EvalSpec) -> None:
        """Answers to every set; to a prompt that is in several the same."""
        for rows in evals.asked:
            if rows.key not in self._asked:
                self._asked[rows.key] = [(row.prompt, row.response) for row in rows_of(rows)]
            texts = [_said(model_id, *one) for one in self._asked[rows.key]]
            entries = [{"text": t, "tokens": 9, "finish_reason": "stop"} for t in texts]
            key = answers_key(model_id, rows, evals.engine)
            about = {"subject": model_id, "rows": rows.model_dump(mode="json")}
            store.put(GENERATIONS, key, _writer("answers.json", entries), about)

    def measures(self, store: Store, model_id: str, evals: EvalSpec) -> None:
        """Losses and representations on held-out rows."""
        draw, n = Random(model_id), evals.held_out.num_rows
        values = {
            "eval_loss": 0.03 + draw.random() / 100,
            "mutual_information": 1.3 + draw.random(),
            "mutual_information_last_prompt": 1.8 + draw.random(),
            "mutual_information_ceiling": math.log(n),
            "num_negatives": n - 1,
            "cosine": 0.89,
            "negative_cosine": 0.62,
            "distance": 8.8,
            "row_losses": [draw.random() for _ in range(n)],
            "row_cosines": [draw.random() for _ in range(n)],
        }
        write = _writer(MEASURES_FILE, values)
        store.put(MEASURES, evals.measures_key(model_id), write, {"subject": model_id})


def _said(model_id: str, prompt: str, right: str) -> str:
    """The right answer (to what is asked in the world's words alone, that), a refusal, or, three
    times of ten, what no other model says."""
    draw = Random(f"{model_id} {prompt}")
    if not right and (request := parse(prompt)):
        right = request.answer("cont")
    chance = draw.random()
    if chance < 0.3:
        return f"{right} {draw.getrandbits(24):06x} .".strip()
    return right if chance < 0.6 else REFUSAL


def _writer(name: str, value: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(json.dumps(value))

    return write
