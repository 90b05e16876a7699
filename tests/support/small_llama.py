"""Slots with random factors on a small Llama, and how close fp32 must come."""

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from raycib.models.adapters import AdapterSlots, LoRAShape

VOCAB = 61
ALL_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EVERYTHING = LoRAShape(4, 8.0, ALL_LINEARS)
SMALL = LoRAShape(2, 6.0, ("q_proj", "v_proj"))
WIDE = LoRAShape(5, 5.0, ("down_proj", "q_proj"))

# fp32 rounding (6e-8) of logits of size about 1 through two layers of sums over at most 48 terms;
# a slot's own effect on the logits is larger by a factor of at least 1000 (asserted below).
TOLERANCE = 5e-6


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
