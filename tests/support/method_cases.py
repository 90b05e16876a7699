"""Every method as raycib's spec has it and as the papers do (`plain.py`), on the tiny model."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import plain
import torch
from plain import Plain
from safetensors.numpy import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from raycib.config import LoRASpec, Method, ModelSpec, PlainLoRA, StageSpec, TaskSpec, TrainerSpec
from raycib.data.chat import encode
from raycib.data.rows import rows_of
from raycib.methods.case1 import Case1
from raycib.methods.case2 import Case2
from raycib.methods.case2_ball import Case2Ball
from raycib.methods.cib import CIB
from raycib.methods.constrained_token import ConstrainedToken
from raycib.methods.ema import EMA
from raycib.methods.kl import KL
from raycib.methods.o_lora import OLoRA
from raycib.methods.random_subset import RandomSubset
from raycib.methods.safegrad import SafeGrad
from raycib.methods.safety_mix import SafetyMix
from raycib.methods.salora import SaLoRA
from raycib.methods.sbr import SBR
from raycib.methods.vaccine import Vaccine
from raycib.model_files import describe, find
from raycib.models import load_tokenizer
from raycib.store import Store
from raycib.training.group import STAGES, Loaded, commit, load, open_slot
from raycib.training.slot import Norm, Slot
from raycib.training.workers import Workers

CPU = torch.device("cpu")
MICRO = 4
TRAINER = TrainerSpec(
    learning_rate=5e-3, batch_size=10, warmup_steps=2, epochs=2, max_grad_norm=0.5, weight_decay=0.1
)
LORA = LoRASpec(rank=4, alpha=8)
BELOW = LoRASpec(rank=3, alpha=6)
"""Of the adapter under O-LoRA's: of another rank."""


class World(NamedTuple):
    """The tiny model, a base before it, a task and safety rows."""

    aligned: ModelSpec
    base: ModelSpec
    task: TaskSpec
    safety: TaskSpec
    store: Store
    others: dict[LoRASpec | None, Plain]
    """What each test compares with, loaded once: PEFT's model by what lies below its adapter."""

    @property
    def folder(self) -> Path:
        return find(self.aligned.source)

    def encode(self, spec: TaskSpec) -> list:
        tokenizer = load_tokenizer(self.aligned.source)
        return [encode(tokenizer, row, 64) for row in rows_of(spec)]


def louder(folder: Path) -> ModelSpec:
    """The tiny model with matrices eight times as large: at its own size all next-token
    distributions are nearly uniform, and every divergence nearly zero."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter *= 8
    model.save_pretrained(folder)
    return describe(str(folder))


def stage_of(world: World, method: Method, **more: object) -> StageSpec:
    parts = {"model": world.aligned, "task": world.task, "lora": LORA, "trainer": TRAINER}
    return StageSpec.model_validate({**parts, "method": method, **more})


def randomise(slot: Slot, seed: int = 0) -> None:
    """A and B of the size that they have after some training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in slot.parameters.values():
            parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))


def stored_parent(world: World, lora: LoRASpec, seed: int) -> StageSpec:
    """A plain stage whose adapter, of random weights, is in the store."""
    stage = stage_of(world, PlainLoRA(), lora=lora, seed=seed)
    if world.store.get(STAGES, stage.key) is None:
        loaded = load([stage], CPU)
        slot = open_slot(0, stage, loaded, world.store)
        randomise(slot, seed)
        commit(slot, loaded.adapters, world.store, Workers())
    return stage


class Case(NamedTuple):
    """A method as raycib's spec has it and as the papers have it."""

    spec: Callable[[World], Method]
    plain: Callable[[World], plain.Method]
    first_step: bool = True
    """Whether it differs from plain LoRA at the first step already."""
    after: plain.After = plain.left_alone
    """What it does to the weights after the optimiser."""


def fixed(spec: Method, method: plain.Method, first_step: bool = True) -> Case:
    return Case(lambda _: spec, lambda _: method, first_step)


def cib(options: CIB, first_step: bool = False, centred: bool = False, **more: object) -> Case:
    """A contrast of its own for every test: it has a memory."""

    def contrast(world: World) -> plain.Method:
        task = world.encode(world.task) if centred else ()
        parts = (options.lam, options.queue_size, options.num_negatives)
        return plain.Contrast(*parts, task=task, **more)  # type: ignore[arg-type]

    return Case(lambda _: options, contrast, first_step)


CASES: dict[str, Case] = {
    "lora": fixed(PlainLoRA(), plain.lora),
    "random_subset": fixed(RandomSubset(fraction=0.6), plain.lora),
    "kl": fixed(KL(lam=1.0), plain.kl(1.0, "forward", "response")),
    "kl, reverse": fixed(
        KL(lam=0.5, direction="reverse"), plain.kl(0.5, "reverse", "response")
    ),
    "kl, all tokens": fixed(
        KL(lam=3.0, tokens="all"), plain.kl(3.0, "forward", "all")
    ),
    "vaccine": fixed(Vaccine(rho=0.3), plain.vaccine(0.3, 3, whole_batch=False)),
    "vaccine, official": fixed(
        Vaccine(rho=2.0, ascent_steps=1, norm="batch"), plain.vaccine(2.0, 1, whole_batch=True)
    ),
    "salora": Case(
        lambda w: SaLoRA(safety=w.safety, safety_rank=4, task_rank=6, calibration_rows=10),
        lambda w: plain.OffSafety(
            w.folder, w.encode(w.safety)[:10], w.encode(w.task)[:10], (LORA.rank, 4, 6)
        ),
    ),
    "o_lora": fixed(OLoRA(lam=0.05), plain.o_lora(0.05, "l1", "lora_A", mean=False)),
    "o_lora, as in the paper": fixed(
        OLoRA(lam=0.5, norm="squared", factor="lora_B", mean=False),
        plain.o_lora(0.5, "squared", "lora_B", mean=False),
    ),
    "o_lora, mean": fixed(
        OLoRA(lam=50.0, mean=True), plain.o_lora(50.0, "l1", "lora_A", mean=True)
    ),
    "cib": cib(CIB(lam=1.0, queue_size=10, num_negatives=10)),
    "cib, hardest": cib(
        CIB(lam=2.0, queue_size=9, num_negatives=6, draw="hardest",
            pooling="last_prompt_token", layer="before_norm"),
        draw="hardest", pooling="last_prompt_token", layer="before_norm",
    ),
    "cib, centred": cib(
        CIB(lam=1.0, queue_size=9, num_negatives=5, draw="most_similar", center=True,
            negatives="current", pooling="mean_all"),
        draw="most_similar", pooling="mean_all", current=True, centred=True,
    ),
    "cib, anchor alone": cib(
        CIB(lam=5.0, num_negatives=0, pooling="last_token"), first_step=True, pooling="last_token"
    ),
    "safety_mix": Case(
        lambda w: SafetyMix(safety=w.safety, share=0.5), lambda _: plain.lora
    ),
    "constrained_token": fixed(ConstrainedToken(beta=0.3), plain.constrained(0.3)),
    "ema": fixed(EMA(decay=0.9), plain.lora, first_step=False),
    "sbr": Case(lambda w: SBR(safety=w.safety, lam=3.0, anchors=5), lambda _: plain.sbr(3.0)),
    "safegrad": Case(
        lambda w: SafeGrad(safety=w.safety, lam=0.5, rows_per_step=7), lambda _: plain.safegrad(0.5)
    ),
    "case2": fixed(Case2(lam=0.02), plain.case2(0.02)),
    "case1": Case(
        lambda w: Case1(safety=w.safety, lam=2.0, rows_per_step=7), lambda _: plain.case1(2.0)
    ),
    "case1, convex": Case(
        lambda w: Case1(safety=w.safety, lam=0.9, form="convex", rows_per_step=3),
        lambda _: plain.case1(0.9, 1 - 0.9),
    ),
    "case1, means over rows": Case(
        lambda w: Case1(safety=w.safety, lam=2.0, rows_per_step=7, reduction="row"),
        lambda _: plain.case1(2.0, loss=plain.mean_of_rows),
    ),
    "case2_ball": Case(
        lambda _: Case2Ball(epsilon=11), lambda _: plain.lora, after=plain.ball(11)
    ),
    "case2_ball, for each module": Case(
        lambda _: Case2Ball(epsilon=3, scope="module"),
        lambda _: plain.lora,
        after=plain.ball(3, each=True),  # which binds for half of the modules
    ),
}  # fmt: skip


def opened(world: World, method: Method, below: LoRASpec = BELOW) -> tuple[Slot, Loaded]:
    """A slot of the method, its weights away from the start."""
    stacked = {"parent": stored_parent(world, below, seed=5), "fresh": True}
    stage = stage_of(world, method, **(stacked if method.stacked else {}))
    loaded = load([stage], CPU)
    slot = open_slot(0, stage, loaded, world.store)
    randomise(slot)
    return slot, loaded


def other_side(world: World, method: Method, below: LoRASpec = BELOW) -> Plain:
    """PEFT with the same adapter, and the same one below where there is one."""
    key = below if method.stacked else None
    if key is None and key not in world.others:
        world.others[key] = Plain(world.folder, LORA.rank, LORA.alpha)
    elif key not in world.others:
        world.others[key] = Plain(world.folder, LORA.rank, LORA.alpha, (below.rank, below.alpha))
        record = world.store.get(STAGES, stored_parent(world, below, seed=5).key)
        assert record
        stored = load_file(record.path("adapter_model.safetensors"))
        factors = {plain.short(name): torch.tensor(t) for name, t in stored.items()}
        world.others[key].copy(factors, below=True)
    return world.others[key]


def watch(slot: Slot) -> list[dict[str, Tensor]]:
    """The slot's gradients before they are clipped, step by step."""
    seen: list[dict[str, Tensor]] = []
    clip = slot.clip

    def spy(norm: Norm) -> None:
        seen.append({n: p.grad.clone() for n, p in slot.parameters.items() if p.grad is not None})
        clip(norm)

    slot.clip = spy  # type: ignore[method-assign]
    return seen


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Relative to the norm of what is expected."""
    assert found.keys() == expected.keys()
    one, other = plain.flat(found).double(), plain.flat(expected)
    assert other.norm() > 0
    return float((one - other).norm() / other.norm())


def batch_of(slot: Slot) -> plain.Batch:
    """What the coming step will see; in which order is `BatchSampler`'s business."""
    examples = slot.task.rows(slot.step)
    safety = slot.safety
    auxiliary = [safety.data[i] for i in safety.rows(slot.step)] if safety else []
    return plain.Batch(slot.step, [slot.task.data[i] for i in examples], examples, auxiliary)


def copies(slot: Slot) -> dict[str, Tensor]:
    return {name: p.detach().double() for name, p in slot.parameters.items()}
