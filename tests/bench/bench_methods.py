"""What does a step of each method cost beside one of plain LoRA?

    OMP_NUM_THREADS=1 python tests/bench/bench_methods.py [--rounds 15]

On the embedded world, at its preset's size. FLOPs are exact (with cached references, and with live
ones where a method has any); times are process CPU time of whole optimiser steps in interleaved
rounds, as medians and quartiles of ratios to the same round's LoRA step: wall-clock on a shared
machine is useless. What is done once for a whole grid is apart.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from timing import interleaved, ratio

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from costs import flops, move

from raycib.config import Method, PlainLoRA, StageSpec
from raycib.config.presets.world import WORLD
from raycib.data.rows import describe_task
from raycib.methods.case2 import Case2
from raycib.methods.cib import CIB
from raycib.methods.constrained_token import ConstrainedToken
from raycib.methods.ema import EMA
from raycib.methods.kl import KL
from raycib.methods.o_lora import OLoRA
from raycib.methods.random_subset import RandomSubset
from raycib.methods.safe_lora import SafeLoRA
from raycib.methods.safegrad import SafeGrad
from raycib.methods.safety_mix import SafetyMix
from raycib.methods.salora import SaLoRA
from raycib.methods.sbr import SBR
from raycib.methods.vaccine import Vaccine
from raycib.model_files import describe
from raycib.store import Store
from raycib.training.group import STAGES, Loaded, commit, load, open_slot
from raycib.training.slot import Slot
from raycib.training.workers import Workers

WARM, COUNTED = 6, 4
"""Steps before anything is measured, so that CIB's queue holds enough; steps that are counted."""
LORA = "lora"


class Bench:
    """Slots of the world's preset, each on a model of its own."""

    def __init__(self, folder: Path) -> None:
        source, length = WORLD.tasks[WORLD.task].train, WORLD.max_length
        self.task = describe_task(WORLD.task, source, length)
        self.safety = describe_task("proxy", "world:harmful.proxy", length)
        self.base = describe("world:base")
        self.store = Store(folder)
        trainer = WORLD.trainer.model_copy(update={"epochs": 10})
        self.plain = StageSpec(
            model=describe(WORLD.model), task=self.task, lora=WORLD.lora, trainer=trainer
        )
        self.once: dict[str, float] = {}
        """CPU seconds of what a method does before its first step, beyond LoRA's."""

    def open(self, name: str, method: Method, cached: bool = True) -> tuple[Slot, Loaded]:
        """A warm slot."""
        change: dict[str, object] = {"method": method}
        if name.startswith(("o_lora", "stacked")) or method.derived:
            change |= {"parent": self.plain, "fresh": not method.derived}
        stage = self.plain.model_copy(update=change)
        loaded = load([stage], torch.device("cpu"))
        loaded.encode(self.task)
        loaded.encode(self.safety)
        start = time.process_time()
        slot = open_slot(0, stage, loaded, self.store, cached)
        if cached:
            self.once[name] = time.process_time() - start
        if not method.derived:
            move(slot, loaded, WARM)
        return slot, loaded

    def methods(self) -> dict[str, tuple[str, Method]]:
        """What is measured, with the data that it needs beside the task's."""
        safety = self.safety
        refusals = f"{safety.num_rows} refusals"
        return {
            LORA: ("", PlainLoRA()),
            "random_subset": ("", RandomSubset()),
            "kl": ("", KL()),
            "kl, all tokens": ("", KL(tokens="all")),
            "vaccine": ("", Vaccine()),
            "vaccine, official": ("", Vaccine(rho=2, ascent_steps=1, norm="batch")),
            "salora": (refusals, SaLoRA(safety=safety)),
            "stacked lora": ("an adapter", PlainLoRA()),
            "o_lora": ("an adapter", OLoRA()),
            "cib": ("", CIB()),
            "cib, anchor alone": ("", CIB(num_negatives=0)),
            "safety_mix": ("5 % refusals", SafetyMix(safety=safety)),
            "constrained_token": ("", ConstrainedToken()),
            "ema": ("", EMA()),
            "sbr": ("8 harmful prompts", SBR(safety=safety)),
            "safegrad": (refusals, SafeGrad(safety=safety)),
            "case2": ("", Case2()),
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="five rounds")
    args = parser.parse_args()
    rounds = 5 if args.quick else args.rounds
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        slots = {LORA: bench.open(LORA, PlainLoRA())}
        plain, loaded = slots[LORA]
        commit(plain, loaded.adapters, bench.store, Workers())
        assert bench.store.get(STAGES, bench.plain.key)
        methods = bench.methods()
        counted: dict[str, int] = {}
        live: dict[str, int] = {}
        for name, (_, method) in methods.items():
            if name != LORA:
                slots[name] = bench.open(name, method)
            counted[name] = flops(*slots[name], steps=COUNTED)
            if method.features or method.safety_features:
                live[name] = flops(*bench.open(name, method, cached=False), steps=COUNTED)
        bench.open("safe_lora", SafeLoRA(base=bench.base))

        works = {name: partial(move, *slots[name]) for name in methods}
        times = interleaved(works, rounds)

    steps = f"16 rows of {bench.task.source}, rank {WORLD.lora.rank}"
    print(f"\nA step of LoRA ({steps}): {counted[LORA] / COUNTED / 1e6:.0f} MFLOP, ", end="")
    print(f"{1e3 * statistics.median(times[LORA]):.0f} ms of CPU; {rounds} rounds")
    head = ("method", "extra data", "FLOP cached", "FLOP live", "time [quartiles]")
    print("{:18s} {:20s} {:>11s} {:>9s}  {}".format(*head))
    for name, (data, _) in methods.items():
        cached = f"{counted[name] / counted[LORA]:.3f}"
        other = f"{live[name] / counted[LORA]:.3f}" if name in live else "-"
        beside = ratio(times[name], times[LORA])
        print(f"{name:18s} {data:20s} {cached:>11s} {other:>9s}  {beside}")
    print("\nOnce, in seconds of CPU beyond LoRA's start (stored: one grid pays each once):")
    for name, seconds in bench.once.items():
        if (more := seconds - bench.once[LORA]) > 0.05:
            print(f"{name:18s} {more:.2f}")
    print("A reading that two methods share, or two settings of one, is computed by the first.")


if __name__ == "__main__":
    main()
