"""What a step of each method costs beside plain LoRA's, in FLOPs: exact, so that a pass too many, a
reference that is not looked up, or a gradient of a frozen weight shows.

All rows have 8 words of prompt and 6 of response, so that every batch is of one size and extra
costs can be written down: d = 32, a head of d x V, 16 rows of 18 tokens of which 7 are scored.
"""

import json
from collections.abc import Callable
from typing import NamedTuple

import pytest
import tiny
import torch
from costs import counter, flops, move

from raycib.config import LoRASpec, Method, PlainLoRA, StageSpec, TaskSpec, TrainerSpec
from raycib.data.rows import describe_task
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
from raycib.models.decoder import hidden_states
from raycib.store import Store
from raycib.training.group import STAGES, Loaded, commit, load, open_slot
from raycib.training.slot import Slot
from raycib.training.workers import Workers

CPU = torch.device("cpu")
ROWS, BESIDE = 16, 8


class World(NamedTuple):
    """A model and rows of one size."""

    stage: StageSpec
    safety: TaskSpec
    store: Store

    def open(
        self, method: Method, cached: bool = True, rank: int = 4, stacked: bool = False
    ) -> tuple[Slot, Loaded]:
        """A slot that has taken two steps: B is not zero, and CIB's queue holds 32 rows."""
        change: dict[str, object] = {"method": method, "lora": LoRASpec(rank=rank, alpha=2 * rank)}
        if stacked:
            parent = self.stage
            if self.store.get(STAGES, parent.key) is None:
                slot, loaded = self.open(PlainLoRA())
                parts = (slot.objective, slot.parameters, slot.trained, slot.task)
                own = Slot(0, parent, slot.hooks, *parts)
                commit(own, loaded.adapters, self.store, Workers())
            change |= {"parent": parent, "fresh": True}
        stage = self.stage.model_copy(update=change)
        loaded = load([stage], CPU)
        slot = open_slot(0, stage, loaded, self.store, cached)
        move(slot, loaded, 2)
        return slot, loaded

    def cost(self, method: Method, **how: bool | int) -> int:
        """Of its third step."""
        return flops(*self.open(method, **how))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("costs")
    for name, count, shift in (("task", 64, 0), ("safety", 16, 7)):
        rows = []
        for n in range(count):
            words = [tiny.WORDS[(n * (1 + k) + shift) % 40] for k in range(14)]
            row = {"prompt": " ".join(words[:8]), "response": " ".join(words[8:])}
            rows.append(json.dumps(row))
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    task, safety = (
        describe_task(name, str(folder / f"{name}.jsonl"), 64) for name in ("task", "safety")
    )
    trainer = TrainerSpec(learning_rate=5e-3, batch_size=ROWS, warmup_steps=0)
    return World(tiny.make_stage(folder, task=task, trainer=trainer), safety, Store(folder / "s"))


class Sizes(NamedTuple):
    """FLOPs to write other costs with."""

    lora: int
    """A step of plain LoRA."""
    base: int
    """The frozen model's forward pass over a batch, without its head and without what the last
    layer makes of prompts."""
    whole: int
    """With that."""
    head: int
    """The head's product for the scored tokens of a batch: 2 tokens d V."""
    head_all: int
    """For all predicted tokens."""
    scored: int
    tokens: int
    states: int
    """That the last layer gives: of scored tokens, and of the last one of each prompt."""
    adapter: int
    """The adapter's own forward pass over a batch: 2 r (in + out) for each token and module."""
    factors: int
    """The adapter's weights: r (in + out) for each module."""


@pytest.fixture(scope="module")
def sizes(world: World) -> Sizes:
    slot, loaded = world.open(PlainLoRA())
    data, model = slot.task.data, loaded.adapters.model
    scored, length = len(data[0].response), len(data[0])
    assert {(len(row.prompt), len(row.response)) for row in data} == {(length - scored, scored)}
    head = 2 * model.config.hidden_size * model.config.vocab_size
    ids = torch.ones(ROWS, length, dtype=torch.long)
    with counter() as counted, torch.no_grad(), loaded.adapters.disabled():
        hidden_states(model, ids)
    states = ROWS * (scored + 1)
    seen = {
        name: states if "layers.1.mlp" in name else ROWS * length
        for name in loaded.adapters.modules
    }
    base = counted.get_total_flops()
    for name, module in loaded.adapters.modules.items():
        if name.startswith("model.layers.1.mlp"):
            base -= 2 * module.base.weight.numel() * (ROWS * length - states)
    factors = {
        name: 4 * (m.base.in_features + m.base.out_features)
        for name, m in loaded.adapters.modules.items()
    }
    adapter = sum(2 * size * seen[name] for name, size in factors.items())
    return Sizes(
        lora=flops(slot, loaded),
        base=base,
        whole=counted.get_total_flops(),
        head=head * ROWS * scored,
        head_all=head * ROWS * (length - 1),
        scored=ROWS * scored,
        tokens=ROWS * length,
        states=states,
        adapter=adapter,
        factors=sum(factors.values()),
    )


def lora_by_hand(sizes: Sizes) -> int:
    """Forward: the base, the adapter, the head. Backward: the same products for the gradients of
    their inputs, the adapter's once more for its weights, and attention's with 5 products for 2.
    The first layer's q, k and v need no gradient of their input: 2 d (d + d/2 + d/2) a token of
    the base, and three times 2 r d of the adapter. Nothing for the gradient of a frozen weight."""
    attention = 2 * (2 * ROWS * 2 * (sizes.tokens // ROWS) ** 2 * (16 + 16))  # layers, heads
    first = sizes.tokens * (2 * 32 * 64 + 3 * 2 * 4 * 32)
    return 2 * sizes.base + attention * 3 // 2 + 3 * sizes.adapter + 2 * sizes.head - first


def test_plain_lora_computes_no_gradient_of_a_frozen_weight(sizes: Sizes):
    assert sizes.lora == lora_by_hand(sizes)


def test_a_leak_of_the_base_s_gradient_would_be_seen(world: World, sizes: Sizes):
    """Frozen weights that want gradients cost their products once more, here of the head; under
    slots they are refused."""
    slot, loaded = world.open(PlainLoRA())
    loaded.adapters.model.get_output_embeddings().requires_grad_(True)
    assert flops(slot, loaded) > 1.01 * sizes.lora
    loaded.adapters.model.get_decoder().layers[1].requires_grad_(True)
    with pytest.raises(RuntimeError, match="the base is frozen under its slots"):
        flops(slot, loaded)


FREE: dict[str, Callable[[World], Method]] = {
    "random subset": lambda w: RandomSubset(fraction=0.75),
    "safety mix": lambda w: SafetyMix(safety=w.safety, share=0.25),
    "ema": lambda w: EMA(),
    "constrained tokens, cached": lambda w: ConstrainedToken(),
}


@pytest.mark.parametrize("name", FREE)
def test_a_method_without_passes_costs_not_one_operation_more(
    world: World, sizes: Sizes, name: str
):
    assert world.cost(FREE[name](world)) == sizes.lora


def test_constrained_tokens_with_live_references_cost_a_forward_pass_more(
    world: World, sizes: Sizes
):
    cost = world.cost(ConstrainedToken(), cached=False)
    assert cost == sizes.lora + sizes.base + sizes.head


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_kl_costs_three_products_with_the_head_more(world: World, sizes: Sizes, direction: str):
    """Own logits forward and backward, and the reference's forward; live also the base's pass."""
    method = KL.model_validate({"lam": 1.0, "direction": direction})
    assert world.cost(method) == sizes.lora + 3 * sizes.head
    assert world.cost(method, cached=False) == sizes.lora + 3 * sizes.head + sizes.base
    # Of all tokens: the last layer's states of prompts, too, forward and backward.
    of_prompts = 2 * (sizes.whole - sizes.base)
    of_prompts += 3 * (2 * sizes.factors * sizes.tokens - sizes.adapter)
    every = KL(lam=1.0, tokens="all")
    assert world.cost(every) == sizes.lora + 3 * sizes.head_all + of_prompts


def test_kl_s_head_is_the_smaller_the_larger_the_model(sizes: Sizes):
    """Here it is 3 heads of a step; the tiny model has 2 layers. The bound of the plan, 1.15 at
    this size, is for response tokens."""
    assert 1 + 3 * sizes.head / sizes.lora < 1.15


def test_cib_with_cached_references_costs_half_a_percent_at_most(world: World, sizes: Sizes):
    """z by a weighted mean of states (2 tokens d, and again backward) and K = 32 cosines a row."""
    method = CIB(queue_size=32, num_negatives=32)
    slot, loaded = world.open(method)
    cost = flops(slot, loaded)
    assert "contrast" in slot.history[-1]
    extra = 2 * 2 * sizes.tokens * 32 + 2 * 2 * ROWS * 32 * 32
    assert sizes.lora < cost <= sizes.lora + extra <= 1.005 * sizes.lora
    live = world.cost(method, cached=False)  # zref takes a mean of its own, without backward
    assert cost + sizes.base <= live <= cost + sizes.base + 2 * sizes.tokens * 32


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("norm", ["sequence", "batch"])
def test_vaccine_costs_one_more_pass_forward_and_backward_for_each_ascent_step(
    world: World, sizes: Sizes, steps: int, norm: str
):
    """Less than a whole step each: of the ascent only gradients in the blocks' outputs are taken,
    neither the adapter's nor those below the first block."""
    method = Vaccine.model_validate({"rho": 0.1, "ascent_steps": steps, "norm": norm})
    ratio = world.cost(method) / sizes.lora
    assert 1 + 0.7 * steps < ratio <= 1 + steps


def test_sbr_costs_its_share_of_rows(world: World, sizes: Sizes):
    """8 rows beside 16, whose hidden states never meet the head: at most half a LoRA step without
    its two head products."""
    cost = world.cost(SBR(safety=world.safety, anchors=BESIDE))
    assert sizes.lora < cost <= sizes.lora + (sizes.lora - 2 * sizes.head) * BESIDE / ROWS


def test_safegrad_costs_its_share_of_rows(world: World, sizes: Sizes):
    """8 rows beside 16 with a divergence for a loss: one more head product (the reference's)."""
    cost = world.cost(SafeGrad(safety=world.safety, rows_per_step=BESIDE))
    assert cost == sizes.lora + (sizes.lora + sizes.head) * BESIDE / ROWS


@pytest.mark.parametrize("form", ["additive", "convex"])
def test_case1_costs_its_share_of_rows(world: World, sizes: Sizes, form: str):
    """8 rows beside 16 with the loss that the task has; nothing of the aligned model is asked."""
    method = Case1.model_validate({"lam": 0.5, "form": form, "safety": world.safety})
    assert method.rows_per_step == BESIDE
    assert world.cost(method) == sizes.lora + sizes.lora * BESIDE / ROWS
    assert world.cost(method, cached=False) == world.cost(method)


@pytest.mark.parametrize("scope", ["global", "module"])
@pytest.mark.parametrize("epsilon", [1e-3, 1e3])
def test_the_ball_costs_products_of_factors_alone(
    world: World, sizes: Sizes, scope: str, epsilon: float
):
    """Two r x r matrices a module, once: 2 r² (in + out), however many tokens there are, whether
    it binds or not."""
    method = Case2Ball.model_validate({"epsilon": epsilon, "scope": scope})
    extra = world.cost(method) - sizes.lora
    assert extra == 2 * 4 * sizes.factors < 0.005 * sizes.lora


def test_case2_costs_products_of_factors_alone(world: World, sizes: Sizes):
    """Two r x r matrices a module, forward, and twice that backward: 6 r² (in + out), however many
    tokens there are."""
    extra = world.cost(Case2(lam=0.1)) - sizes.lora
    assert 0 < extra <= 6 * 4 * sizes.factors <= 0.01 * sizes.lora


def test_o_lora_costs_products_of_factors_beyond_a_stacked_adapter(world: World, sizes: Sizes):
    """r x r_frozen overlaps a module, once forward and once backward for the new factor."""
    stacked = world.cost(PlainLoRA(), stacked=True)
    extra = world.cost(OLoRA(lam=0.1), stacked=True) - stacked
    assert 0 < extra <= 4 * 4 * sizes.factors <= 0.01 * stacked
    assert stacked <= world.cost(PlainLoRA(), rank=8)


def test_salora_costs_less_than_lora_of_twice_the_rank(world: World, sizes: Sizes):
    """Its start is subtracted by frozen columns, which get no gradient of their own; C costs
    2 products of r x r_s x out a module, forward and backward."""
    wide = world.cost(PlainLoRA(), rank=8)
    own = world.cost(SaLoRA(safety=world.safety, safety_rank=4))
    directions = 4 * 2 * 4 * sizes.factors
    assert sizes.lora < own <= wide + directions
    default = world.cost(SaLoRA(safety=world.safety, safety_rank=4, init="default"))
    assert sizes.lora < default <= sizes.lora + directions <= 1.01 * sizes.lora
