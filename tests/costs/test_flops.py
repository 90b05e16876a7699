"""FLOPs against torch's own counter, on a model whose sizes differ from one another."""

from pathlib import Path

import pytest
import tiny
import torch
import transformers
from costs import counter

from raycib.costs import flops
from raycib.costs.memory import Adapter
from raycib.costs.sizes import sizes_of
from raycib.model_files import describe
from raycib.models import load_model
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.decoder import hidden_states
from raycib.models.head import token_loss

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ROWS, LENGTH, SCORED = 3, 50, 40
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flops") / "model"
    config = transformers.LlamaConfig(
        vocab_size=500, hidden_size=64, intermediate_size=160, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=4, head_dim=24,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tiny.make_tokenizer(folder)
    return folder


def test_a_forward_and_a_training_pass_cost_what_is_counted(folder: Path):
    """To the last product, but for attention, of which torch counts the whole square and a plan the
    half that a token sees, and for the first layer, whose input needs no gradient."""
    sizes, model = sizes_of(str(folder)), load_model(describe(str(folder)), CPU)
    ids, places = torch.randint(3, 500, (ROWS, LENGTH)), slice(0, SCORED)
    tokens, squares = ROWS * LENGTH, ROWS * LENGTH**2
    with counter() as counted, torch.no_grad():
        states = hidden_states(model, ids).final_norm.flatten(0, 1)[places]
        token_loss(model, states, ids.flatten()[places])
    square = 4 * sizes.queries * 3 * squares
    assert flops.forward(sizes, tokens, squares, SCORED) + square / 2 == counted.get_total_flops()
    adapters = AdapterSlots(model, [LoRAShape(4, 8.0, TARGETS)])
    adapters.initialise(0, torch.Generator().manual_seed(0))
    with counter() as counted:
        states = hidden_states(model, ids).final_norm.flatten(0, 1)[places]
        token_loss(model, states, ids.flatten()[places]).sum().backward()
    told = flops.train(sizes, Adapter(4, TARGETS), tokens, squares, SCORED)
    first = 2 * (3 * 96 * 64) * tokens
    # Backward, a fused kernel does the scores again: five products where two were done.
    assert told - 1.5 * square + 3.5 * square - first == pytest.approx(
        counted.get_total_flops(), rel=0.002
    )


def test_an_answer_costs_a_forward_pass_of_all_of_its_tokens(folder: Path):
    sizes = sizes_of(str(folder))
    alone = flops.forward(sizes, 30, 30**2, 10)
    assert flops.answer(sizes, [20, 20], 10) == 2 * alone
    # A token more of the prompt: the decoder's weights twice, and what attention sees more.
    more = flops.answer(sizes, [21], 10) - alone
    assert more == 2 * sizes.decoder_parameters + 2 * 96 * 3 * (31**2 - 30**2)


def test_checkpointed_layers_are_computed_twice(folder: Path):
    """So that training costs 6 FLOPs a weight and token in place of 4."""
    sizes, adapter = sizes_of(str(folder)), Adapter(1, ("q_proj",))
    once = flops.train(sizes, adapter, 1000, 0, 0)
    again = flops.train(sizes, adapter, 1000, 0, 0, checkpointed=True)
    assert again / once == pytest.approx(1.5, rel=0.01)
