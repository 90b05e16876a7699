"""Slots compute what PEFT computes, alone or packed, and a slot is an ordinary PEFT adapter."""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_llama import (
    ALL_LINEARS,
    EVERYTHING,
    SMALL,
    TOLERANCE,
    WIDE,
    assert_gradients_close,
    assert_logits_close,
    randomise,
    row_losses,
    slots_on,
    tokens,
)
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from raycib.models.adapters import AdapterSlots, LoRAShape, update_norm_sq

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


def test_a_gradient_in_something_else_is_not_added_to_that_of_the_slots(base):
    """An objective may ask for the gradient in states before the pass of its loss."""
    adapters, ids = slots_on(base, EVERYTHING, EVERYTHING), tokens(4)
    states = base.get_input_embeddings()(ids).detach().requires_grad_()
    with adapters.route([(0, 2), (1, 2)], stacked=True):
        loss = row_losses(base(inputs_embeds=states).logits, ids).mean()
    (slope,) = torch.autograd.grad(loss, states, retain_graph=True)
    assert slope.abs().max() > 0
    assert not any(one.grad is not None and one.grad.any() for one in adapters.trained(0))
    loss.backward()
    torch.testing.assert_close(states.grad, slope, rtol=0, atol=0)
    assert all(one.grad.any() for one in adapters.trained(0))


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
