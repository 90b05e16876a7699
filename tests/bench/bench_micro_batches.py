"""What padding costs on real rows, and what a step holds and takes, dealt and checkpointed or not.

    OMP_NUM_THREADS=1 python tests/bench/bench_micro_batches.py [--model MODEL --rows ROWS.jsonl]

MODEL is a folder or a hub id, whose tokenizer counts the rows; without them lengths are drawn, as
log-normal as Dolly's are. The step is one of a small Llama on random tokens of these lengths, 8
rows of each of 4 slots. Process CPU time, interleaved rounds, medians.
"""

import argparse
import random
import statistics
import time
from pathlib import Path

import torch
from bench_slots import tiny_llama
from torch import Tensor

from raycib.data.chat import Encoded
from raycib.data.lengths import count_tokens
from raycib.data.rows import read_rows
from raycib.models import load_tokenizer
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.step import GroupStep
from raycib.models.tensors import Totals, collate
from raycib.training.micro_batches import Lengths, deal, expect

LIMIT, TOKENS, SIZE, SLOTS = 1024, 16384, 8, 4
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def padding(name: str, lengths: Lengths) -> None:
    for batch in (64, 16):
        for slots in (1, SLOTS):
            said = [f"{name:8s} batch {batch:2d}, {slots} slots:"]
            for how, tokens in ((f"{SIZE} rows as drawn", None), (f"{TOKENS} tokens", TOKENS)):
                for workers in (1, 2):
                    one = expect(lengths, batch, slots, workers, SIZE, tokens)
                    each = one.micro_batches / workers / -(-len(lengths) // batch)
                    said.append(
                        f"{how}, {workers} workers: {one.share:.3f} in {each:.1f} passes, the "
                        f"largest {one.largest};"
                    )
            print(*said)


class Held:
    """Bytes that autograd holds, leaves not counted."""

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        if not tensor.is_leaf:
            storage = tensor.untyped_storage()
            self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor


def step(
    adapters: AdapterSlots, rows: list[list[Encoded]], tokens: int | None
) -> tuple[float, int]:
    """CPU seconds of an effective batch, and the most bytes that a micro-batch holds."""
    lengths = {slot: [len(row) for row in one] for slot, one in enumerate(rows)}
    begun, most = time.process_time(), 0
    for micro in deal(lengths, {}, 1, SIZE, tokens)[0]:
        batches = {slot: collate(rows[slot], places) for slot, places in micro.task.items()}
        held = Held()
        with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda tensor: tensor):
            loss = GroupStep(adapters, batches, {s: Totals(1, 1) for s in batches}, {}).nll.sum()
        most = max(most, sum(held.storages.values()))
        loss.backward()
    return time.process_time() - begun, most


def stepping(name: str, lengths: Lengths, rounds: int) -> None:
    draw = random.Random(0)
    base = tiny_llama(width=96, layers=6)
    adapters = AdapterSlots(base, [LoRAShape(8, 16, TARGETS)] * SLOTS)
    for slot in range(SLOTS):
        adapters.initialise(slot, torch.Generator().manual_seed(slot))
    rows = [[row(draw, length) for length in draw.sample(lengths, SIZE)] for _ in range(SLOTS)]
    ways = {
        "as drawn": (None, False), "by length": (TOKENS, False),
        "by length, checkpointed": (TOKENS, True), "as drawn, checkpointed": (None, True),
    }  # fmt: skip
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (tokens, checkpointed) in ways.items():
            adapters.checkpointed = checkpointed
            taken, held = step(adapters, rows, tokens)
            seconds[way].append(taken)
            if len(seconds[way]) == rounds:
                median = statistics.median(seconds[way])
                print(f"{name}, {way}: {median:.2f} CPU s a step, {held / 2**20:.0f} MiB held")


def row(draw: random.Random, length: int) -> Encoded:
    tokens = tuple(draw.randrange(400) for _ in range(length))
    return Encoded(tokens[: length // 2], tokens[length // 2 :])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--rows", nargs="+", type=Path, default=[])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(0)
    sets = {"drawn": [int(draw.lognormvariate(5.3, 0.8)) + 20 for _ in range(400)]}
    if args.rows:
        tokenizer = load_tokenizer(args.model)
        counted = {f.stem[:8]: count_tokens(tokenizer, read_rows(str(f)).rows) for f in args.rows}
        sets = {name: [one.whole for one in found.rows] for name, found in counted.items()}
    for name, whole in sets.items():
        lengths = [length for length in whole if length <= LIMIT]
        padding(name, lengths)
        stepping(name, lengths, args.rounds)


if __name__ == "__main__":
    main()
