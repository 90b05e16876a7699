"""Models that nobody changes: one for slots, with a copy that a test may change, and one of which
a stage trained all weights."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
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
