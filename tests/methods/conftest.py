"""Models and a store that the tests of several methods share, and nobody changes."""

from pathlib import Path

import pytest
import tiny
import torch
from oracles import draws

from raycib.invariances.bench import (
    Bench,
)
from raycib.model_files import describe
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.store import Store


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


@pytest.fixture(scope="session")
def bench(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The tiny model, 48 rows, and a store that all tests share."""
    return Bench(
        model=describe(str(tiny_folder / "model")),
        base=tiny.make_base(tiny_folder),
        task=tiny.make_stage(tiny_folder).task,
        safety=tiny.make_safety(tiny_folder),
        root=tmp_path_factory.mktemp("bench"),
    )


@pytest.fixture(scope="session")
def store(bench: Bench) -> Store:
    """References, subspaces and parents that the slots of all tests share."""
    return bench.store
