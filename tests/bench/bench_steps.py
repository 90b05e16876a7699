"""A step beside TRL's, a step of eight adapters beside eight steps of one, and a further level.

    OMP_NUM_THREADS=1 python tests/bench/bench_steps.py [--rounds 20]

Whole optimiser steps: drawing and padding rows, forward, backward, clip, AdamW and what is logged.
Random Llamas of a few shapes, rank 8 on all linear layers, float32, one thread. TRL is its
SFTTrainer with PEFT, without bfloat16 and without layers computed twice: both would slow it here.
CIB has its references cached, and is over our own LoRA. All of a shape take turns in one process.
Rows are padded, as the embedded world's are; and end to end, as those of one's own models are.
Compiled are norms, rotations and gated activations, before the rounds that count.
Levels are those of a sequence of the embedded world's tasks, in the worker that trains them: what
goes by from the end of one to the end of the next one's first step.
"""

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

import datasets
import torch
from shapes import Shape
from timing import WARM, cpu_seconds, interleaved, ratio, spread
from transformers import TrainerCallback
from transformers.utils import logging as transformers_logging

from raycib.config import StageSpec
from raycib.config.plan import AdapterGroup, Job
from raycib.config.presets import Execution, for_own_model
from raycib.config.presets.world import WORLD
from raycib.data.rows import describe_task
from raycib.methods.cib import CIB
from raycib.model_files import describe
from raycib.models.compiled import compile_parts
from raycib.runtime.worker import TrainWorker
from raycib.store import Store
from raycib.training.group import load, open_slot
from raycib.training.loop import take_step
from raycib.training.workers import Workers

AGAINST_TRL = (
    Shape(64, 2, 16, 16, 40),
    Shape(96, 3, 16, 16, 40),
    Shape(256, 4, 8, 32, 64, vocabulary=32_000),
)
PACKED = (
    Shape(64, 2, 2, 16, 16),
    Shape(128, 2, 2, 32, 32),
    Shape(96, 3, 16, 16, 40),
    Shape(256, 4, 4, 64, 64),
)
SLOTS = 8
END_TO_END = for_own_model(WORLD, gpu=False).execution
COMPILED = WORLD.execution.model_copy(update={"compile": True})


class Group:
    """Some stages on a base of their own, stepped as a worker steps them."""

    def __init__(
        self, stages: list[StageSpec], store: Store, execution: Execution = WORLD.execution
    ) -> None:
        self._execution = execution
        self._loaded = load(stages, torch.device("cpu"))
        if execution.compile:
            compile_parts(self._loaded.adapters.model)
        self.slots = [open_slot(n, one, self._loaded, store) for n, one in enumerate(stages)]

    def step(self) -> None:
        """One optimiser step of every stage, each with a gradient."""
        take_step(
            self._loaded.adapters, self.slots, Workers(), self._execution.micro_batch_size,
            self._execution.micro_batch_tokens,
        )  # fmt: skip
        for slot in self.slots:
            assert slot.failed is None and slot.history[-1]["grad_norm"] > 0


class InTurn(TrainerCallback):
    """Times each step of a trainer, and after each one does our part of the round."""

    def __init__(self, ours: dict[str, Group]) -> None:
        self.times: dict[str, list[float]] = {"trl": [], **{name: [] for name in ours}}
        self._ours = ours
        self._began = 0.0

    def on_train_begin(self, *_: object, **__: object) -> None:
        self._began = time.process_time()

    def on_step_end(self, *_: object, **__: object) -> None:
        self.times["trl"].append(time.process_time() - self._began)
        for name, group in self._ours.items():
            self.times[name].append(cpu_seconds(group.step))
        self._began = time.process_time()


def against_trl(shape: Shape, rounds: int, folder: Path) -> str:
    """A line of the first table."""
    from with_trl import check_gradients, sft

    rows = shape.rows(rounds + WARM)
    model, file = shape.make(folder / "model"), _written(rows, folder / "rows.jsonl")
    store = Store(folder / "store")
    ours = {
        "lora": Group([shape.stage(model, file)], store),
        "cib": Group([shape.stage(model, file, method=CIB())], store),
        "ends": Group([shape.stage(model, file)], store, END_TO_END),
        "compiled": Group([shape.stage(model, file)], store, COMPILED),
    }
    turns = InTurn(ours)
    trainer = sft(
        model, rows, folder / "trl", batch=shape.batch, learning_rate=1e-3, callbacks=[turns]
    )
    trainer.train()
    check_gradients(trainer)
    trl, lora, cib, ends, compiled = (
        turns.times[name][WARM:] for name in ("trl", "lora", "cib", "ends", "compiled")
    )
    assert len(trl) == rounds
    return (
        f"{shape!s:24}{spread(trl, 1e3, 1):>24}{spread(lora, 1e3, 1):>24}"
        f"{ratio(lora, trl):>20}{ratio(ends, trl):>20}{ratio(cib, lora):>20}"
        f"{ratio(compiled, lora):>20}"
    )


def packed(shape: Shape, rounds: int, folder: Path) -> str:
    """A line of the second table."""
    model = shape.make(folder / "model")
    file = _written(shape.rows(4), folder / "rows.jsonl")
    stages = [shape.stage(model, file, seed=seed) for seed in range(SLOTS)]
    store = Store(folder / "store")
    group, alone = Group(stages, store), [Group([stage], store) for stage in stages]
    contrast = [shape.stage(model, file, seed=seed, method=CIB()) for seed in range(SLOTS)]
    cib, ends = Group(contrast, store), Group(stages, store, END_TO_END)
    times = interleaved(
        {"group": group.step, "alone": lambda: [one.step() for one in alone], "cib": cib.step,
         "ends": ends.step},
        rounds,
    )  # fmt: skip
    tokens = [slot.tokens for slot in group.slots]
    useful = sum(one["useful"] for one in tokens) / sum(one["computed"] for one in tokens)
    return (
        f"{shape!s:24}{spread(times['alone'], 1e3, 1):>24}{spread(times['group'], 1e3, 1):>24}"
        f"{ratio(times['alone'], times['group']):>20}{useful:>16.2f}"
        f"{ratio(times['ends'], times['group']):>22}{ratio(times['cib'], times['group']):>20}"
    )


def levels(store: Store) -> list[float]:
    """CPU seconds before the first step of each level but the first is taken."""
    found: list[float] = []
    news: list[float] = []
    worker = TrainWorker(store, WORLD.execution, lambda *_: news.append(time.process_time()))
    parents: list[StageSpec | None] = [None] * 2
    model = describe(str(WORLD.sequence_model))
    for name, task in WORLD.sequence.items():
        rows = describe_task(name, f"{task.train.partition('#')[0]}#first-320", WORLD.max_length)
        trainer = WORLD.sequence_trainer or WORLD.trainer
        stages = [
            StageSpec(
                model=model, task=rows, lora=WORLD.lora, trainer=trainer, seed=seed, parent=parent
            )
            for seed, parent in enumerate(parents)
        ]
        jobs = tuple(Job(stage=stage, evals=()) for stage in stages)
        began = time.process_time()
        news.clear()
        assert not worker.do(AdapterGroup(name=f"pack-{name}", jobs=jobs)).failures
        found.append(news[0] - began)
        parents = [*stages]
    return found[1:]


def _written(rows: list[dict[str, str]], file: Path) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--quick", action="store_true", help="five rounds")
    args = parser.parse_args()
    rounds = 5 if args.quick else args.rounds
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()

    print(f"CPU ms of an optimiser step: median [quartiles], n = {rounds}")
    head = ("", "TRL's LoRA", "our LoRA", "ours / TRL's", "end to end / TRL's", "CIB / LoRA")
    print("{:24}{:>24}{:>24}{:>20}{:>20}{:>20}{:>20}".format(*head, "compiled / LoRA"))
    for shape in AGAINST_TRL:
        with tempfile.TemporaryDirectory() as folder:
            print(against_trl(shape, rounds, Path(folder)), flush=True)
    print(f"\nPacking: {SLOTS} adapters step alone, one after the other, and as one group")
    head = ("", "alone", "packed", "alone / packed", "useful tokens", "end to end / packed")
    print("{:24}{:>24}{:>24}{:>20}{:>16}{:>22}{:>20}".format(*head, "CIB / LoRA"))
    for shape in PACKED:
        with tempfile.TemporaryDirectory() as folder:
            print(packed(shape, rounds, Path(folder)), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        further = levels(Store(folder))
    print(f"\nA further level of two stages, to the end of its first step: {spread(further)} CPU s")


if __name__ == "__main__":
    main()
