"""Slots compute what PEFT computes, alone or packed, and a slot is an ordinary PEFT adapter."""

import copy
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from raycib.models.adapters import AdapterSlots, LoRAShape, update_norm_sq

VOCAB = 61
ALL_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EVERYTHING = LoRAShape(4, 8.0, ALL_LINEARS)
SMALL = LoRAShape(2, 6.0, ("q_proj", "v_proj"))
WIDE = LoRAShape(5, 5.0, ("down_proj", "q_proj"))

# fp32 rounding (6e-8) of logits of size about 1 through two layers of sums over at most 48 terms;
# a slot's own effect on the logits is larger by a factor of at least 1000 (asserted below).
TOLERANCE = 5e-6


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def untouched() -> PreTrainedModel:
    """A random Llama with grouped-query attention and biases, whose logits are of size 1."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=True,
        initializer_range=0.2,
        use_cache=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                torch.nn.init.normal_(parameter)
    return model


@pytest.fixture
def base(untouched: PreTrainedModel) -> PreTrainedModel:
    return copy.deepcopy(untouched)


def tokens(rows: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (rows, 7), generator=torch.Generator().manual_seed(seed))


def randomise(adapters: AdapterSlots, slot: int, seed: int | None = None) -> None:
    """Non-zero A and B, drawn per slot."""
    generator = torch.Generator().manual_seed(100 + slot if seed is None else seed)
    for parameter in adapters.parameters_of(slot).values():
        parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


def slots_on(model: PreTrainedModel, *shapes: LoRAShape) -> AdapterSlots:
    adapters = AdapterSlots(model, shapes)
    for slot in range(len(shapes)):
        randomise(adapters, slot)
    return adapters


def row_losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Mean next-token loss of each row, in nats."""
    return F.cross_entropy(logits[:, :-1].mT, ids[:, 1:], reduction="none").mean(1)


def assert_logits_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


def assert_gradients_close(found: Tensor | None, expected: Tensor | None) -> None:
    """Equal up to the rounding of fp32 sums over rows and positions, relative to the whole."""
    assert found is not None
    assert expected is not None
    assert expected.norm() > 0
    assert (found - expected).norm() <= 1e-5 * expected.norm()


# What a slot computes


def test_a_slot_equals_peft_with_the_same_weights(base, untouched):
    peft = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=list(ALL_LINEARS)))
    adapters = slots_on(copy.deepcopy(untouched), EVERYTHING)
    theirs = dict(peft.named_parameters())
    for name, parameter in adapters.parameters_of(0).items():
        theirs[f"base_model.model.{name}.default.weight"].data.copy_(parameter)
    ids = tokens(4)
    ours = adapters.model(ids).logits
    assert (ours - untouched(ids).logits).abs().max() > 1000 * TOLERANCE
    assert_logits_close(ours, peft(ids).logits)


def test_gradients_equal_those_of_peft(base, untouched):
    peft = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=list(ALL_LINEARS)))
    adapters = slots_on(copy.deepcopy(untouched), EVERYTHING)
    theirs = dict(peft.named_parameters())
    mine = adapters.parameters_of(0)
    for name, parameter in mine.items():
        theirs[f"base_model.model.{name}.default.weight"].data.copy_(parameter)
    ids = tokens(4)
    for model in (peft, adapters.model):
        row_losses(model(ids).logits, ids).mean().backward()
    for name, parameter in mine.items():
        expected = theirs[f"base_model.model.{name}.default.weight"]
        assert_gradients_close(parameter.grad, expected.grad)


@pytest.mark.parametrize("rows", [[(0, 4)], [(0, 2), (1, 2)], [(1, 1), (0, 3)]])
def test_a_new_slot_leaves_the_logits_exactly_as_they_were(base, untouched, rows):
    adapters = AdapterSlots(base, [EVERYTHING, SMALL])
    for slot in (0, 1):
        adapters.initialise(slot, torch.Generator().manual_seed(slot))
    ids = tokens(4)
    with adapters.route(rows):
        assert torch.equal(adapters.model(ids).logits, untouched(ids).logits)


def test_disabled_slots_leave_the_model_exactly_as_it_was(base, untouched):
    adapters = slots_on(base, EVERYTHING, SMALL)
    ids = tokens(4)
    with adapters.route([(0, 2), (1, 2)]):
        with adapters.disabled():
            assert torch.equal(adapters.model(ids).logits, untouched(ids).logits)
            with adapters.route([(0, 4)]):
                assert torch.equal(adapters.model(ids).logits, untouched(ids).logits)
        assert not torch.equal(adapters.model(ids).logits, untouched(ids).logits)


def test_half_precision_bases_keep_fp32_slots(base):
    adapters = slots_on(base.to(torch.bfloat16), EVERYTHING, SMALL)
    with adapters.route([(0, 1), (1, 2)]):
        logits = adapters.model(tokens(3)).logits
    logits.float().square().mean().backward()
    assert logits.dtype == torch.bfloat16
    for parameter in adapters.parameters_of(0).values():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32


def test_under_autocast_slots_compute_in_the_base_layers_dtype(base):
    """bf16 keeps 8 bits: logits of size 1 stay within 1/16 of the fp32 ones."""
    adapters = slots_on(base, SMALL)
    ids = tokens(4)
    exact = adapters.model(ids).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = adapters.model(ids).logits
    assert rounded.dtype == torch.bfloat16
    assert 0 < (rounded.float() - exact).norm() < exact.norm() / 16


# Groups


GROUPS = {
    "equal slots, equal rows": ((EVERYTHING, EVERYTHING, EVERYTHING), [(0, 2), (1, 2), (2, 2)]),
    "other shapes, equal rows": ((EVERYTHING, SMALL, WIDE), [(0, 2), (1, 2), (2, 2)]),
    "equal slots, unequal rows": ((EVERYTHING, EVERYTHING, EVERYTHING), [(0, 2), (1, 4), (2, 6)]),
    "other shapes, coprime rows": ((EVERYTHING, SMALL, WIDE), [(2, 3), (0, 1), (1, 2)]),
    "a finished slot": ((EVERYTHING, SMALL, WIDE), [(2, 2), (0, 2)]),
    "no slot that targets k_proj": ((EVERYTHING, SMALL, WIDE), [(1, 2), (2, 1)]),
}


@pytest.mark.parametrize("stacked", [False, True], ids=["by parameter", "stacked"])
@pytest.mark.parametrize(("shapes", "rows"), GROUPS.values(), ids=GROUPS)
def test_grouped_slots_equal_the_same_slots_alone(untouched, shapes, rows, stacked):
    group = slots_on(copy.deepcopy(untouched), *shapes)
    ids = {slot: tokens(count, seed=slot) for slot, count in rows}
    with group.route(rows, stacked):
        logits = group.model(torch.cat(list(ids.values()))).logits
    grouped = dict(zip(ids, logits.split([count for _, count in rows]), strict=True))
    torch.stack([row_losses(grouped[slot], ids[slot]).mean() for slot in ids]).sum().backward()
    for slot, shape in enumerate(shapes):
        in_group = group.parameters_of(slot)
        if slot not in ids:
            assert all(parameter.grad is None for parameter in in_group.values())
            continue
        alone = AdapterSlots(copy.deepcopy(untouched), [shape])
        randomise(alone, 0, seed=100 + slot)
        own_logits = alone.model(ids[slot]).logits
        assert_logits_close(grouped[slot], own_logits)
        row_losses(own_logits, ids[slot]).mean().backward()
        for name, parameter in alone.parameters_of(0).items():
            assert_gradients_close(in_group[name].grad, parameter.grad)


@pytest.mark.parametrize("rows", [[(0, 4), (1, 4)], [(0, 7), (1, 1)]])
def test_a_pass_copies_no_factors(base, rows):
    """What the backward pass needs of them is the memory that the optimiser moves."""
    adapters, ids = slots_on(base, EVERYTHING, EVERYTHING), tokens(8)
    own = {p.untyped_storage().data_ptr() for p in adapters.trained(0)}
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with (
        adapters.route(rows, stacked=True),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        base(ids)
    inside = [t for t in kept if t.untyped_storage().data_ptr() in own]
    blocks = 1 if rows[0][1] == rows[1][1] else 2
    assert len(inside) == blocks * 2 * (7 + 4), "A of 4 joints and 7 B in each of 2 layers"


def test_a_slot_may_own_several_groups(base):
    adapters = slots_on(base, EVERYTHING, SMALL)
    ids = tokens(6)
    with adapters.route([(0, 1), (1, 3), (0, 2)]):
        mixed = adapters.model(ids).logits
    with adapters.route({0: 6}):
        first = adapters.model(ids).logits
    assert_logits_close(mixed[[0, 4, 5]], first[[0, 4, 5]])
    assert (mixed - first)[1:4].abs().amax((1, 2)).min() > 1000 * TOLERANCE


def test_gradients_reach_only_the_slots(base):
    adapters = slots_on(base, SMALL, WIDE)
    ids = tokens(4)
    with adapters.route([(0, 2), (1, 2)]):
        row_losses(adapters.model(ids).logits, ids).sum().backward()
    slots = {id(p) for slot in (0, 1) for p in adapters.parameters_of(slot).values()}
    for parameter in base.parameters():
        assert (parameter.grad is not None) == (id(parameter) in slots) == parameter.requires_grad


def test_a_step_spends_no_flops_on_gradients_of_base_weights(base):
    """Forward, input gradients and slots: about 2.1 forwards; base weight gradients make it 3."""
    adapters = slots_on(base, EVERYTHING, EVERYTHING)
    ids = tokens(8)

    def flops(train: bool, through: AbstractContextManager[None]) -> int:
        with FlopCounterMode(display=False) as counter, through:
            with torch.set_grad_enabled(train):
                loss = row_losses(adapters.model(ids).logits, ids).sum()
            if train:
                loss.backward()
        return counter.get_total_flops()

    slots = partial(adapters.route, [(0, 4), (1, 4)])
    assert 1.8 < flops(True, slots()) / flops(False, slots()) < 2.3
    base.requires_grad_(True)
    with pytest.raises(RuntimeError, match="the base is frozen under its slots"):
        flops(True, slots())
    alone = adapters.disabled
    assert flops(True, alone()) / flops(False, alone()) > 2.6  # so the gate can fail


# Initialisation


def test_initialisation_depends_on_the_slots_own_generator_only(untouched):
    group = AdapterSlots(copy.deepcopy(untouched), [EVERYTHING, SMALL])
    alone = AdapterSlots(copy.deepcopy(untouched), [SMALL])
    state = torch.get_rng_state()
    group.initialise(0, torch.Generator().manual_seed(3))
    group.initialise(1, torch.Generator().manual_seed(7))
    torch.manual_seed(12345)
    alone.initialise(0, torch.Generator().manual_seed(7))
    assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(12345).get_state())
    torch.set_rng_state(state)
    for name, parameter in alone.parameters_of(0).items():
        assert torch.equal(parameter, group.parameters_of(1)[name])
    assert not torch.equal(
        group.parameters_of(0)["model.layers.0.self_attn.q_proj.lora_A"][:2],
        group.parameters_of(1)["model.layers.0.self_attn.q_proj.lora_A"],
    )


def test_a_starts_uniform_within_one_over_root_in_dim_and_b_at_zero(base):
    adapters = AdapterSlots(base, [EVERYTHING])
    randomise(adapters, 0)
    adapters.initialise(0, torch.Generator().manual_seed(0))
    for name, parameter in adapters.parameters_of(0).items():
        if name.endswith("lora_B"):
            assert not parameter.any()
        else:
            bound = parameter.shape[1] ** -0.5
            assert 0.9 * bound < parameter.abs().max() <= bound


# The norm of the update


A_ORACLE = torch.tensor([[1.0, 0, 2, 1], [0, 1, 1, -1]])
B_ORACLE = torch.tensor([[1.0, 2], [0, 1], [3, 0]])


def test_update_norm_of_a_hand_computed_product():
    """BA = [[1,2,4,-1],[0,1,1,-1],[3,0,6,3]]: 22 + 3 + 54 = 79, and 4 * 79 = 316 with scale 2."""
    assert update_norm_sq(A_ORACLE, B_ORACLE, 1.0) == 79
    assert update_norm_sq(A_ORACLE, B_ORACLE, 2.0) == 316


def test_update_norm_gradients():
    """2s²B(AAᵀ) for B and 2s²(BᵀB)A for A; zero, not NaN, at B = 0."""
    a, b = A_ORACLE.clone().requires_grad_(), B_ORACLE.clone().requires_grad_()
    grad_a, grad_b = torch.autograd.grad(update_norm_sq(a, b, 2.0), (a, b))
    torch.testing.assert_close(grad_a, 8 * B_ORACLE.T @ B_ORACLE @ A_ORACLE)
    torch.testing.assert_close(grad_b, 8 * B_ORACLE @ A_ORACLE @ A_ORACLE.T)
    zero = torch.zeros_like(B_ORACLE).requires_grad_()
    assert torch.autograd.grad(update_norm_sq(a, zero, 2.0), zero)[0].abs().max() == 0


def test_a_slots_update_norm_sums_the_explicit_matrices_of_its_modules(base):
    adapters = slots_on(base, EVERYTHING, WIDE)
    for slot, shape in enumerate((EVERYTHING, WIDE)):
        p = adapters.parameters_of(slot)
        names = {name.rpartition(".")[0] for name in p}
        assert len(names) == 2 * len(shape.targets)
        explicit = sum(
            (shape.scale * p[f"{n}.lora_B"] @ p[f"{n}.lora_A"]).square().sum() for n in names
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = adapters.update_norm_sq(slot)
        torch.testing.assert_close(found, explicit, rtol=1e-5, atol=0)


# PEFT folders


def peft_adapter(model: PreTrainedModel, folder: Path, **settings: Any) -> Path:
    """A folder as PEFT writes it, with random A and B."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": list(ALL_LINEARS)} | settings
    with torch.random.fork_rng():
        torch.manual_seed(1)
        peft = get_peft_model(copy.deepcopy(model), LoraConfig(task_type="CAUSAL_LM", **settings))
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    peft.save_pretrained(str(folder))
    return folder


def test_a_peft_adapter_round_trips_byte_for_byte(base, tmp_path):
    theirs = peft_adapter(base, tmp_path / "theirs")
    adapters = AdapterSlots(base, [SMALL, EVERYTHING])
    adapters.load(1, theirs)
    adapters.export(1, tmp_path / "ours", base_model_name="")
    weights = "adapter_model.safetensors"
    assert (theirs / weights).read_bytes() == (tmp_path / "ours" / weights).read_bytes()


def test_an_export_writes_the_config_that_peft_writes(base, tmp_path):
    theirs = peft_adapter(base, tmp_path / "theirs")
    AdapterSlots(base, [EVERYTHING]).export(0, tmp_path / "ours", base_model_name="tiny/llama")
    configs = [
        json.loads((f / "adapter_config.json").read_text()) for f in (theirs, tmp_path / "ours")
    ]
    assert configs[1]["target_modules"] == list(ALL_LINEARS)  # equal slots, equal bytes
    for config in configs:
        config["target_modules"] = set(config["target_modules"])  # PEFT writes a set, in any order
    assert configs[1] == configs[0] | {"base_model_name_or_path": "tiny/llama"}


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True, "lora_alpha": 4}])
def test_a_loaded_peft_adapter_gives_its_logits(base, untouched, tmp_path, settings):
    """rsLoRA scales by alpha / √rank: 4 / √4 is the 8 / 4 of the slot."""
    folder = peft_adapter(base, tmp_path, **settings)
    adapters = AdapterSlots(base, [EVERYTHING])
    adapters.load(0, folder)
    theirs = PeftModel.from_pretrained(copy.deepcopy(untouched), folder)
    assert_logits_close(adapters.model(tokens(4)).logits, theirs(tokens(4)).logits)


@pytest.mark.parametrize("slot", [0, 1, 2])
def test_an_exported_slot_gives_its_logits_in_peft(base, untouched, tmp_path, slot):
    adapters = slots_on(base, EVERYTHING, SMALL, LoRAShape(3, 4.5, ("up_proj",)))
    adapters.export(slot, tmp_path / "new" / "folder", base_model_name="tiny/llama")
    theirs = PeftModel.from_pretrained(copy.deepcopy(untouched), tmp_path / "new" / "folder")
    assert theirs.peft_config["default"].base_model_name_or_path == "tiny/llama"
    with adapters.route([(slot, 4)]):
        ours = adapters.model(tokens(4)).logits
    assert_logits_close(ours, theirs(tokens(4)).logits)


def test_exports_are_equal_bytes_for_equal_slots(untouched, tmp_path):
    for folder in ("one", "two"):
        adapters = slots_on(copy.deepcopy(untouched), EVERYTHING)
        adapters.export(0, tmp_path / folder, base_model_name="tiny/llama")
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "another rank": ({"r": 8}, "rank 8 .* slot 0 has rank 4"),
    "another scale": ({"lora_alpha": 16}, "scale 4 .* scale 2"),
    "fewer modules": ({"target_modules": ["q_proj"]}, "k_proj"),
    "fewer layers": ({"layers_to_transform": [0]}, r"layers\.1"),
    "DoRA": ({"use_dora": True}, "use_dora"),
    "biases": ({"bias": "lora_only"}, "bias"),
    "LoRA biases": ({"lora_bias": True}, "lora_bias"),
    "whole modules": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "a rank pattern": ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
    "an alpha pattern": ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
    "another base": ({"init_lora_weights": "pissa"}, "init_lora_weights"),
}


@pytest.mark.parametrize(("settings", "message"), REFUSALS.values(), ids=REFUSALS)
def test_adapters_that_would_compute_something_else_are_refused(base, tmp_path, settings, message):
    folder = peft_adapter(base, tmp_path, **settings)
    adapters = AdapterSlots(base, [EVERYTHING])
    before = {n: p.detach().clone() for n, p in adapters.parameters_of(0).items()}
    with pytest.raises(ValueError, match=message):
        adapters.load(0, folder)
    assert all(torch.equal(p, before[n]) for n, p in adapters.parameters_of(0).items())


def test_a_folder_without_an_adapter_is_refused(base, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no adapter_config\.json"):
        AdapterSlots(base, [SMALL]).load(0, tmp_path)


# Frozen slices and fixed directions


OTHER = LoRAShape(3, 4.5, ALL_LINEARS)
"""Another rank and scale than EVERYTHING's: 1.5 against 2."""


def exported(model: PreTrainedModel, folder: Path, shape: LoRAShape, seed: int) -> Path:
    """A folder with a random adapter of this shape."""
    adapters = AdapterSlots(copy.deepcopy(model), [shape])
    randomise(adapters, 0, seed=seed)
    adapters.export(0, folder, base_model_name="tiny/llama")
    return folder


def fix_directions(adapters: AdapterSlots, slot: int, count: int) -> None:
    """Random ones, as many for every module."""
    generator = torch.Generator().manual_seed(5)
    for module in adapters.modules_of(slot).values():
        drawn = torch.randn(module.base.out_features, count, generator=generator)
        module.fix(slot, torch.linalg.qr(drawn).Q)


def update_of(adapters: AdapterSlots, slot: int) -> dict[str, Tensor]:
    """What the slot adds to each weight in all."""
    found = {}
    for name, module in adapters.modules_of(slot).items():
        a, b, scale = module.factors(slot)
        found[name] = (scale * b @ a).detach()
    return found


def test_a_frozen_adapter_of_any_rank_and_scale_adds_its_own_update(base, untouched, tmp_path):
    """The slot's update is the sum of both, each with its own scale."""
    folder = exported(untouched, tmp_path, OTHER, seed=1)
    below = AdapterSlots(copy.deepcopy(untouched), [OTHER])
    below.load(0, folder)
    adapters = slots_on(base, EVERYTHING)
    own = update_of(adapters, 0)
    adapters.freeze(0, folder)
    whole = update_of(adapters, 0)
    for name, earlier in update_of(below, 0).items():
        torch.testing.assert_close(whole[name], own[name] + earlier, rtol=0, atol=1e-6)
    randomise(adapters, 0, seed=1)
    with torch.no_grad():
        for name, parameter in adapters.parameters_of(0).items():
            if name.endswith("lora_B"):
                parameter.zero_()
    ids = tokens(4)
    assert_logits_close(adapters.model(ids).logits, below.model(ids).logits)


def test_a_frozen_adapter_takes_no_part_in_training(base, untouched, tmp_path):
    """It stays in the forward pass, bit for bit as it was, and no gradient is kept for it."""
    adapters = slots_on(base, EVERYTHING, SMALL)
    alone = update_of(adapters, 0)
    adapters.freeze(0, exported(untouched, tmp_path, OTHER, seed=1))
    frozen = {name: module.frozen[0] for name, module in adapters.modules.items()}
    before = {name: [part.clone() for part in parts] for name, parts in frozen.items()}
    optimiser = torch.optim.AdamW(adapters.parameters_of(0).values(), lr=0.01)
    ids = tokens(4)
    for _ in range(3):
        with adapters.route([(0, 2), (1, 2)]):
            row_losses(adapters.model(ids).logits, ids).sum().backward()
        optimiser.step()
    for name, module in adapters.modules.items():
        for part, kept in zip(module.frozen[0], before[name], strict=True):
            assert torch.equal(part, kept)
            assert part.grad is None
            assert not part.requires_grad
        assert 1 not in module.frozen
    assert all((update_of(adapters, 0)[n] - alone[n]).norm() > 0.1 for n in alone)


@pytest.mark.parametrize(
    ("frozen", "fixed"),
    [
        pytest.param([OTHER], 0, id="one frozen"),
        pytest.param([OTHER, EVERYTHING], 0, id="two frozen"),
        pytest.param([], 3, id="fixed directions"),
        pytest.param([OTHER], 3, id="both"),
    ],
)
def test_what_a_slot_computes_in_all_is_what_peft_computes_with_its_export(
    base, untouched, tmp_path, frozen: list[LoRAShape], fixed: int
):
    """Rank 4 and the ranks below it, as one ordinary adapter; packed with a slot that has none."""
    adapters = slots_on(base, SMALL, EVERYTHING)
    for number, shape in enumerate(frozen):
        folder = exported(untouched, tmp_path / str(number), shape, seed=number)
        adapters.freeze(1, folder)
    if fixed:
        fix_directions(adapters, 1, fixed)
    adapters.export(1, tmp_path / "whole", base_model_name="tiny/llama")
    config = json.loads((tmp_path / "whole" / "adapter_config.json").read_text())
    assert config["r"] == 4 + sum(shape.rank for shape in frozen)
    assert config["lora_alpha"] / config["r"] == EVERYTHING.scale
    theirs = PeftModel.from_pretrained(copy.deepcopy(untouched), tmp_path / "whole")
    ids = tokens(4)
    with torch.no_grad(), adapters.route([(0, 2), (1, 4)]):
        ours = adapters.model(torch.cat([tokens(2, seed=9), ids])).logits[2:]
    torch.testing.assert_close(ours, theirs(ids).logits, rtol=0, atol=1e-5)
    again = AdapterSlots(copy.deepcopy(untouched), [LoRAShape(2, 2.0, ALL_LINEARS)])
    again.freeze(0, tmp_path / "whole")  # as it is put back to answer
    assert_logits_close(again.model(ids).logits, ours)
    back = AdapterSlots(copy.deepcopy(untouched), [EVERYTHING])
    back.take_back(0, tmp_path / "whole")  # as a finished stage is put back to be measured
    before, after = adapters.updates(1), back.updates(0)
    assert before.keys() == after.keys()
    for name, update in before.items():
        assert all(torch.equal(*pair) for pair in zip(update[:2], after[name][:2], strict=True))
        assert update[2] == after[name][2]


def test_fixed_directions_are_never_moved(base):
    """U' (B A) = 0 whatever B is, and so is the gradient of B in them: U' dL/dB = 0."""
    adapters = slots_on(base, EVERYTHING)
    before = update_of(adapters, 0)
    fix_directions(adapters, 0, 3)
    ids = tokens(4)
    row_losses(adapters.model(ids).logits, ids).sum().backward()
    for name, module in adapters.modules.items():
        directions, gradient = module.fixed[0], module.lora_B["0"].grad
        assert gradient is not None
        assert gradient.norm() > 0
        assert (directions.T @ gradient).abs().max() < 1e-6 * gradient.norm() + 1e-9
        update = update_of(adapters, 0)[name]
        assert (directions.T @ update).abs().max() < 1e-6
        rest = before[name] - directions @ (directions.T @ before[name])
        torch.testing.assert_close(update, rest, rtol=0, atol=1e-6)


def test_the_norm_of_an_update_counts_what_is_frozen_and_fixed(base, untouched, tmp_path):
    adapters = slots_on(base, EVERYTHING)
    adapters.freeze(0, exported(untouched, tmp_path, OTHER, seed=1))
    fix_directions(adapters, 0, 2)
    explicit = sum(update.square().sum() for update in update_of(adapters, 0).values())
    torch.testing.assert_close(adapters.update_norm_sq(0).detach(), explicit, rtol=1e-5, atol=0)


def test_an_adapter_of_other_layers_cannot_be_put_below(base, untouched, tmp_path):
    """It would be in the forward pass in some layers and in others not."""
    adapters = slots_on(base, EVERYTHING)
    with pytest.raises(ValueError, match=r"adapts other layers than slot 0 .* only in one of the"):
        adapters.freeze(0, exported(untouched, tmp_path / "few", SMALL, seed=1))
    few = AdapterSlots(copy.deepcopy(untouched), [SMALL])
    with pytest.raises(ValueError, match=r"k_proj|o_proj|down_proj|gate_proj"):
        few.freeze(0, exported(untouched, tmp_path / "all", EVERYTHING, seed=1))
    assert not any(module.frozen for module in adapters.modules.values())
    with pytest.raises(ValueError, match="use_dora"):
        adapters.freeze(0, peft_adapter(untouched, tmp_path / "dora", use_dora=True))


# Mistakes


def test_a_target_that_matches_nothing_names_the_linear_layers_there_are(base):
    with pytest.raises(ValueError, match=r"slot 1.*'query'.*'down_proj'.*'v_proj'"):
        AdapterSlots(base, [SMALL, LoRAShape(2, 2.0, ("q_proj", "query"))])


@pytest.mark.parametrize("target", ["norm", "proj", "q_proj.bias", "embed_tokens"])
def test_only_whole_names_of_linear_layers_are_targets(base, target):
    with pytest.raises(ValueError, match="no linear layer is named"):
        AdapterSlots(base, [LoRAShape(2, 2.0, (target,))])


def test_several_slots_need_a_route(base):
    adapters = slots_on(base, SMALL, SMALL)
    with pytest.raises(RuntimeError, match=r"adapters\.route"):
        adapters.model(tokens(2))


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([(0, 2), (1, 1)], ValueError, "batch of 4 rows, but .* 3"),
        ([(0, 2), (2, 2)], IndexError, "slot 2"),
        ([(0, 4), (1, 0)], ValueError, "slot 1 was given 0 rows"),
        ([], ValueError, "disabled"),
    ],
)
def test_routes_that_do_not_fit_are_refused(
    base, rows: Sequence[tuple[int, int]], error: type[Exception], message: str
):
    adapters = slots_on(base, SMALL, SMALL)
    with pytest.raises(error, match=message), adapters.route(rows):
        adapters.model(tokens(4))
