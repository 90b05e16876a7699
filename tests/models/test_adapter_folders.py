"""A slot is an ordinary folder of PEFT's, written and read."""

import copy
import json
from typing import Any

import pytest
import torch
from peft import PeftModel
from small_llama import (
    ALL_LINEARS,
    EVERYTHING,
    SMALL,
    assert_logits_close,
    peft_adapter,
    slots_on,
    tokens,
)

from raycib.models.adapters import AdapterSlots, LoRAShape


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
