"""What lies below a slot and never moves: frozen adapters and fixed directions."""

import copy
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from small_llama import (
    ALL_LINEARS,
    EVERYTHING,
    SMALL,
    assert_logits_close,
    peft_adapter,
    randomise,
    row_losses,
    slots_on,
    tokens,
)
from torch import Tensor
from transformers import PreTrainedModel

from raycib.models.adapters import AdapterSlots, LoRAShape

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
