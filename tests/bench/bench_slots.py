"""How much faster is one packed step of G slots than G steps of one slot?

    OMP_NUM_THREADS=1 python tests/bench/bench_slots.py [--slots 8] [--rows 16] [--rounds 15]

One optimiser step each (forward, backward, clip, AdamW) of the same slots, rows and tokens.
Process CPU time, interleaved rounds, medians: wall-clock on a shared machine is useless.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from raycib.models.adapters import AdapterSlots, LoRAShape

VOCAB = 411
ALL_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def tiny_llama(width: int = 96, layers: int = 3) -> PreTrainedModel:
    """The size of the embedded world: 372k parameters by default."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=width,
        intermediate_size=256 * width // 96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=True,
        use_cache=False,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


class AdapterGroup:
    """Slots with one AdamW each, as a trainer holds them."""

    def __init__(self, model: PreTrainedModel, shapes: list[LoRAShape], fused: bool = True):
        self.adapters = AdapterSlots(model, shapes)
        self.parameters = []
        for slot in range(len(shapes)):
            self.adapters.initialise(slot, torch.Generator().manual_seed(slot))
            self.parameters.append(list(self.adapters.parameters_of(slot).values()))
        self.optimisers = [torch.optim.AdamW(p, lr=1e-3, fused=fused) for p in self.parameters]

    def step(self, tokens: Tensor) -> list[Tensor]:
        """One step of every slot on its rows of `tokens` (slots rows seq); gradient norms."""
        slots, rows, _ = tokens.shape
        with self.adapters.route([(slot, rows) for slot in range(slots)]):
            logits = self.adapters.model(tokens.flatten(0, 1)).logits[:, :-1]
            labels = tokens.flatten(0, 1)[:, 1:]
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            (loss / labels[:rows].numel()).backward()  # the sum of every slot's mean
        norms = []
        for parameters, optimiser in zip(self.parameters, self.optimisers, strict=True):
            norms.append(torch.nn.utils.clip_grad_norm_(parameters, 1.0))
            optimiser.step()
            optimiser.zero_grad()
        return norms


def cpu_seconds(work: Callable[[], list[Tensor]]) -> float:
    start = time.process_time()
    norms = work()
    seconds = time.process_time() - start
    assert all(norm > 0 for norm in norms), f"a slot without gradient: {norms}"
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--seq", type=int, default=28)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--targets", nargs="+", default=list(ALL_LINEARS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-fused", action="store_true", help="AdamW without fused=True")
    args = parser.parse_args()

    torch.set_num_threads(1)
    base = tiny_llama(args.width, args.layers)
    shape = LoRAShape(args.rank, 2 * args.rank, tuple(args.targets))
    tokens = torch.randint(VOCAB, (args.slots, args.rows, args.seq))
    group = AdapterGroup(copy.deepcopy(base), [shape] * args.slots, not args.no_fused)
    alone = [
        AdapterGroup(copy.deepcopy(base), [shape], not args.no_fused) for _ in range(args.slots)
    ]

    def sequential() -> list[Tensor]:
        return [n for p, rows in zip(alone, tokens, strict=True) for n in p.step(rows[None])]

    def forward_only() -> list[Tensor]:
        with torch.no_grad(), group.adapters.disabled():
            return [group.adapters.model(tokens.flatten(0, 1)).logits.norm()]

    works = {
        "grouped": lambda: group.step(tokens),
        "sequential": sequential,
        "base forward": forward_only,
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(args.rounds + 2):
        for name, work in works.items():
            seconds = cpu_seconds(work)
            if round_ >= 2:  # the first rounds warm up
                times[name].append(seconds)

    for name, seconds in times.items():
        low, middle, high = statistics.quantiles(seconds, n=4)
        print(f"{name:14s} {1e3 * middle:8.1f} ms   [{1e3 * low:.1f}, {1e3 * high:.1f}]")
    for over, under in (("sequential", "grouped"), ("grouped", "base forward")):
        ratios = [a / b for a, b in zip(times[over], times[under], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{over} / {under}: {middle:.2f} [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
