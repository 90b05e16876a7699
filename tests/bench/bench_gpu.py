"""What an H100, or another GPU, makes of Llama-3.1-8B: steps, their memory, and answers.

    python tests/bench/bench_gpu.py [--rounds 5] [--tiny]

Random weights in bfloat16, rank 32 on all linear layers, rows of 64 to 512 tokens, 16 a step and
adapter. Each step is whole and in wall-clock time, and ends without one whose gradient is zero.
MFU is the plan's FLOPs of the rows' own tokens over the peak of the maker's data sheet: padding is
no work. The plan's memory is its own formula for the largest micro-batch that there was, without
the process: torch does not count that either.
The model, 16 GB, is written into a temporary folder once; vLLM reads it from there as well.
`--tiny` is a model of some thousand weights wherever it is, to try the program: no figure of it
means anything, and the engine is left out.
"""

import argparse
import gc
import json
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
import transformers
from shapes import AROUND, CONTROLS, Shape
from timing import spread
from transformers import LlamaConfig

from raycib.config import Method, PlainLoRA, StageSpec
from raycib.costs import flops
from raycib.costs.gpus import gpu_here
from raycib.costs.memory import (
    GIB,
    Adapter,
    activations,
    adapter_bytes,
    weight_bytes,
)
from raycib.costs.sizes import sizes_of
from raycib.evals.engine import GenerationRequest
from raycib.evals.generate import Generator
from raycib.evals.in_process import targets_of
from raycib.methods.cib import CIB
from raycib.models.device import device_of
from raycib.store import Store
from raycib.training.group import commit, load, open_slot
from raycib.training.loop import take_step
from raycib.training.workers import Workers

RANK = 32
TOKENS = 4096
"""Of a micro-batch, as in the presets for a GPU."""
WARM = 2
PROMPTS, ANSWER = 520, 128
"""AdvBench's prompts, and the tokens of an answer here."""


@dataclass(frozen=True)
class Eight(Shape):
    """Llama-3.1-8B."""

    @property
    def config(self) -> LlamaConfig:
        """Its published sizes."""
        return LlamaConfig(
            vocab_size=self.vocabulary, hidden_size=self.hidden, num_hidden_layers=self.layers,
            intermediate_size=14336, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
            max_position_embeddings=131072, rope_theta=5e5, tie_word_embeddings=False,
            dtype=torch.bfloat16, eos_token_id=CONTROLS.index("<eos>"),
            pad_token_id=CONTROLS.index("<pad>"),
        )  # fmt: skip


LLAMA = Eight(4096, 32, 16, 64, 512, vocabulary=128_256)
TINY = Shape(64, 2, 4, 16, 40)


class Group:
    """Adapters on a base, stepped as a worker steps them."""

    def __init__(self, stages: Sequence[StageSpec], store: Store, packed: bool) -> None:
        self.device = device_of(torch.cuda.device_count())
        self._loaded = load(stages, self.device)
        self.slots = [open_slot(n, one, self._loaded, store) for n, one in enumerate(stages)]
        longest = stages[0].task.max_length
        self._rows = max(1, TOKENS // (longest * len(stages)))
        self._tokens = TOKENS if packed else None

    def step(self) -> float:
        """Seconds of an optimiser step of every adapter."""
        began = time.perf_counter()
        take_step(self._loaded.adapters, self.slots, Workers(), self._rows, self._tokens)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        for slot in self.slots:
            assert slot.failed is None
            assert slot.history[-1]["grad_norm"] > 0
        return time.perf_counter() - began

    def flops(self, step: int) -> float:
        """Of a step's rows, without padding."""
        rows = [slot.task.data[n] for slot in self.slots for n in slot.task.rows(step)]
        lengths = [len(row) for row in rows]
        scored = sum(len(row.response) for row in rows)
        sizes, adapter = self._sizes()
        squares = sum(n * n for n in lengths)
        answering = scored + len(rows)
        return flops.train(sizes, adapter, sum(lengths), squares, scored, answering=answering)

    def told(self) -> float:
        """Bytes that a plan foretells."""
        sizes, adapter = self._sizes()
        dtype, many = str(self._loaded.adapters.model.dtype).partition(".")[2], len(self.slots)
        tokens = self._tokens or self._rows * many * self.slots[0].stage.task.max_length
        passes = activations(
            sizes, [adapter] * many, dtype, tokens, tokens // 2, False, self._tokens is not None
        )
        held = weight_bytes(sizes, dtype) + many * adapter_bytes(sizes, adapter)
        return held + passes.total

    def _sizes(self) -> Any:
        lora = self.slots[0].stage.lora
        assert lora is not None
        return sizes_of(self.slots[0].stage.model.source), Adapter(lora.rank, lora.targets)

    def export(self, store: Store) -> list[Path]:
        """The adapters' folders."""
        adapters = self._loaded.adapters
        return [commit(slot, adapters, store, Workers()).folder for slot in self.slots]


def measured(group: Group, rounds: int, peak: float) -> str:
    """The end of a line of the first table."""
    on_gpu = group.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(WARM):
        group.step()
    times: list[float] = []
    shares: list[float] = []
    speeds: list[float] = []
    for number in range(WARM, WARM + rounds):
        times.append(group.step())
        done = group.flops(number) / times[-1]
        speeds.append(done / 1e12)
        shares.append(done / peak if peak else 0.0)
    useful = sum(slot.tokens["useful"] for slot in group.slots)
    computed = sum(slot.tokens["computed"] for slot in group.slots)
    share = spread(shares, 100, 1) if peak else "-"
    held = f"{torch.cuda.max_memory_allocated() / GIB:.1f}" if on_gpu else "-"
    return (
        f"{spread(times, 1e3, 0):>24}{spread(speeds, 1, 0):>20}{share:>22}"
        f"{useful / computed:>10.2f}{held:>10}{group.told() / GIB:>10.1f}"
    )


def answers(model: Path, adapters: Sequence[Path], longest: int) -> Iterator[str]:
    """Lines of the second table."""
    engine = Generator(
        model,
        max_lora_rank=RANK,
        max_model_len=longest + ANSWER,
        dtype="bfloat16",
        gpus=1.0,
        targets=targets_of(adapters[0]),
    )
    for many in (1, 8):
        asked = [
            GenerationRequest(
                f"{n}", tuple(range(AROUND + 5 + n, AROUND + 45 + n)), adapters[n % many], ANSWER
            )
            for n in range(PROMPTS)
        ]
        engine.answer(asked[:8])
        began = time.perf_counter()
        said = sum(len(one.token_ids) for one in engine.answer(asked))
        seconds = time.perf_counter() - began
        assert said
        yield f"{many:>8}{len(asked):>10}{said:>12,}{seconds:>10.1f}{said / seconds:>12,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="on any machine, to try the program")
    args = parser.parse_args()
    if not args.tiny and not torch.cuda.is_available():
        print("no GPU here: nothing is measured (--tiny tries the program on a CPU)")
        return
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    shape, counts = (TINY, (1, 2)) if args.tiny else (LLAMA, (1, 4, 8))
    gpu = gpu_here() if torch.cuda.is_available() else None
    name = torch.cuda.get_device_name() if gpu else "CPU"
    print(
        f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, transformers "
        f"{transformers.__version__}, Python {platform.python_version()}; {shape}, n = "
        f"{args.rounds}, peak {gpu.peak / 1e12 if gpu else 0:.0f} TFLOP/s"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model, rows = shape.make(root / "model"), root / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in shape.rows(WARM + args.rounds)))
        store = Store(root / "store")
        kinds: dict[str, Method] = {"lora": PlainLoRA(), "cib": CIB()}
        stages = {
            kind: [shape.stage(model, rows, seed, method, RANK) for seed in range(counts[-1])]
            for kind, method in kinds.items()
        }
        head = ("method", "adapters", "rows", "ms a step", "TFLOP/s", "MFU, %", "useful", "GiB")
        print("{:8}{:>8}{:>12}{:>24}{:>20}{:>22}{:>10}{:>10}{:>10}".format(*head, "plan"))
        exported: list[Path] = []
        for many, kind, packed in product(counts, kinds, (False, True)):
            group = Group(stages[kind][:many], store, packed)
            line = measured(group, args.rounds, gpu.peak if gpu else 0.0)
            print(f"{kind:8}{many:>8}{'end to end' if packed else 'padded':>12}{line}", flush=True)
            exported = group.export(store) if (many, kind) == (counts[-1], "lora") else exported
            del group
            gc.collect()  # layers and what they share know each other, and hold the base
            torch.cuda.empty_cache()
        if not args.tiny:
            print(f"\n{'adapters':>8}{'answers':>10}{'tokens':>12}{'s':>10}{'tokens / s':>12}")
            for line in answers(model, exported, shape.longest):
                print(line, flush=True)


if __name__ == "__main__":
    main()
