"""Models that nobody changes: one for slots, with a copy that a test may change, and one of which
a stage trained all weights; folders of random ones of each architecture."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from architectures import random_model
from small_llama import VOCAB
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel
from whole_models import trained, whole_stage

from raycib.config import StageSpec
from raycib.store import Store


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


@pytest.fixture(scope="session")
def made(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StageSpec, Store]:
    """A model that a stage made, and the store that it is in."""
    stage, store = whole_stage(tiny_folder), Store(tmp_path_factory.mktemp("made"))
    trained(stage, store)
    return stage, store


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A model of one's own, to be spoilt."""
    return Path(shutil.copytree(tiny_folder / "model", tmp_path / "mine"))


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folders of random models, each made once."""
    root = tmp_path_factory.mktemp("architectures")

    def make(name: str, **overrides: Any) -> Path:
        folder = root / "-".join((name, *map(str, overrides)))
        if not folder.exists():
            random_model(name, **overrides).save_pretrained(folder)
            tiny.make_tokenizer(folder)
        return folder

    return make
