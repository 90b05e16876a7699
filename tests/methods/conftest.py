"""Models that the oracles of several methods read, and nobody changes."""

from pathlib import Path

import pytest
import tiny
import torch
from oracles import draws

from raycib.models.adapters import AdapterSlots, LoRAShape


@pytest.fixture(scope="module")
def tiny_slot(tmp_path_factory: pytest.TempPathFactory) -> AdapterSlots:
    """The tiny model with one slot that does something."""
    from transformers import AutoModelForCausalLM

    folder = tiny.make_model(tmp_path_factory.mktemp("oracles") / "model")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    adapters = AdapterSlots(model, [LoRAShape(4, 8.0, ("q_proj", "down_proj"))])
    with torch.no_grad():
        for number, parameter in enumerate(adapters.parameters_of(0).values()):
            parameter.copy_(0.3 * draws(*parameter.shape, seed=number))
    return adapters


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An aligned model and a base, and a task."""
    folder = tmp_path_factory.mktemp("safe lora")
    for seed, name in enumerate(("aligned", "base")):
        tiny.make_model(folder / name, seed=seed)
    tiny.make_rows(folder / "task.jsonl", 24)
    tiny.make_rows(folder / "safety.jsonl", 12, seed=5)
    return folder
