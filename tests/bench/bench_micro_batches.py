"""Useful of all computed tokens on real rows; and what a step of them holds and takes.

    OMP_NUM_THREADS=1 python tests/bench/bench_micro_batches.py [--data FOLDER] [--steps]

FOLDER holds the rows of the papers' tasks, as many as there are; a task that is not there is said.
Tokens are counted with the tokenizer of MODEL, a folder, a package or a hub id. Steps are those of
a small Llama on random tokens of Dolly's lengths (or of lengths as log-normal as Dolly's), 8 rows
of each of 4 slots. Process CPU time, interleaved rounds, medians.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch
from shapes import Shape
from torch import Tensor
from transformers import AutoModelForCausalLM

from raycib.config.presets.papers import ON_A_GPU
from raycib.data.chat import Encoded
from raycib.data.lengths import count_tokens
from raycib.data.rows import read_rows
from raycib.errors import UserError
from raycib.models import load_tokenizer
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.group_step import GroupStep
from raycib.models.tensors import Totals, collate, together
from raycib.training.micro_batches import Lengths, deal, expect

DATA = Path(__file__).parents[3] / "shared" / "data"
TASKS = {
    "dolly": "dolly/dolly_387.jsonl",
    "gsm8k": "gsm8k/train.jsonl",
    "medmcqa": "medmcqa/train.jsonl",
    "squad_v2": "squad_v2/train.jsonl",
}
"""Of CIB's sequence of tasks, and where their rows are."""
LIMIT, STEP_TOKENS, SIZE, SLOTS = 1024, 16384, 8, 4
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def lengths_of(data: Path, model: str) -> dict[str, Lengths]:
    """Tokens of the rows that are there and not too long, by task; says what is not there."""
    found: dict[str, Lengths] = {}
    try:
        tokenizer = load_tokenizer(model)
    except UserError as error:
        print(f"no tokenizer, so no task is counted: {error}")
        return found
    for task, file in TASKS.items():
        if (data / file).is_file():
            rows = count_tokens(tokenizer, read_rows(str(data / file)).rows).rows
            found[task] = [row.whole for row in rows if row.whole <= LIMIT]
        else:
            print(f"{task}: skipped, its rows are not here ({file} below --data)")
    return found


def padding(name: str, lengths: Lengths) -> None:
    """Lines of the table, for a task."""
    tokens = ON_A_GPU.micro_batch_tokens
    for batch in (64, 16):
        for slots in (1, SLOTS):
            drawn = expect(lengths, batch, slots, 1, SIZE, None)
            cut, packed = (
                expect(lengths, batch, slots, 1, SIZE, tokens, packed) for packed in (False, True)
            )
            assert drawn.useful == cut.useful == packed.useful == slots * sum(lengths)
            shares = "".join(f"{one.share:>14.3f}" for one in (drawn, cut, packed))
            passes = packed.micro_batches / -(-len(lengths) // batch)
            print(f"{name:10}{len(lengths):>8,}{batch:>8}{slots:>8}{shares}{passes:>10.1f}")


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
    adapters: AdapterSlots, rows: list[list[Encoded]], tokens: int | None, packed: bool
) -> tuple[float, int]:
    """CPU seconds of an effective batch, and the most bytes that a micro-batch holds."""
    lengths = {slot: [len(row) for row in one] for slot, one in enumerate(rows)}
    begun, most = time.process_time(), 0
    for micro in deal(lengths, {}, 1, SIZE, tokens, packed)[0]:
        batches = {slot: collate(rows[slot], places) for slot, places in micro.task.items()}
        held = Held()
        with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda tensor: tensor):
            totals = {slot: Totals(1, 1) for slot in batches}
            loss = GroupStep(adapters, *together(batches), totals, {}, packed=packed).nll.sum()
        most = max(most, sum(held.storages.values()))
        loss.backward()
    return time.process_time() - begun, most


def stepping(name: str, lengths: Lengths, rounds: int) -> None:
    """What a step holds and takes, each way."""
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        base = AutoModelForCausalLM.from_pretrained(
            Shape(96, 6, SIZE, LIMIT, LIMIT).make(Path(folder))
        )
    adapters = AdapterSlots(base, [LoRAShape(8, 16, TARGETS)] * SLOTS)
    for slot in range(SLOTS):
        adapters.initialise(slot, torch.Generator().manual_seed(slot))
    rows = [[row(draw, length) for length in draw.sample(lengths, SIZE)] for _ in range(SLOTS)]
    ways = {
        "as drawn": (None, False, False), "by length": (STEP_TOKENS, False, False),
        "end to end": (STEP_TOKENS, True, False),
        "end to end, checkpointed": (STEP_TOKENS, True, True),
    }  # fmt: skip
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (tokens, packed, checkpointed) in ways.items():
            adapters.checkpointed = checkpointed
            taken, held = step(adapters, rows, tokens, packed)
            seconds[way].append(taken)
            if len(seconds[way]) == rounds:
                median = statistics.median(seconds[way])
                print(f"{name}, {way}: {median:.2f} CPU s a step, {held / 2**20:.0f} MiB held")


def row(draw: random.Random, length: int) -> Encoded:
    tokens = tuple(draw.randrange(400) for _ in range(length))
    return Encoded(tokens[: length // 2], tokens[length // 2 :])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="pypi:smollm2")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--steps", action="store_true", help="steps too: a minute of CPU")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sets = lengths_of(args.data, args.model)
    print("useful of all computed tokens in an epoch")
    head = ("", "rows", "batch", "slots", "as drawn", "by length", "end to end", "passes")
    print("{:10}{:>8}{:>8}{:>8}{:>14}{:>14}{:>14}{:>10}".format(*head))
    for name, lengths in sets.items():
        padding(name, lengths)
    if args.steps:
        draw = random.Random(0)
        drawn = [int(draw.lognormvariate(5.3, 0.8)) + 20 for _ in range(400)]
        for name, lengths in {"drawn": drawn, **sets}.items():
            stepping(name, [length for length in lengths if length <= LIMIT], args.rounds)


if __name__ == "__main__":
    main()
