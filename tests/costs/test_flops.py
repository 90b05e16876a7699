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
from raycib.data.chat import Encoded
from raycib.model_files import describe
from raycib.models import load_model
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.adapters.whole import WholeModel
from raycib.models.decoder import hidden_states
from raycib.models.group_step import GroupStep
from raycib.models.head import token_loss
from raycib.models.tensors import Totals, collate, together

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
    half that a token sees."""
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
    # Backward, a fused kernel does the scores again: five products where two were done.
    assert told - 1.5 * square + 3.5 * square == counted.get_total_flops()


def counted_step(adapters: AdapterSlots, checkpointed: bool = False) -> int:
    """FLOPs by torch of a whole micro-batch, of which 11 tokens of 50 answer, forward and
    backward."""
    adapters.initialise(0, torch.Generator().manual_seed(0))
    adapters.checkpointed = checkpointed
    rows = [Encoded(tuple(range(3, 43)), tuple(range(5, 15)))] * ROWS
    batch = together({0: collate(rows, range(ROWS))})
    step = GroupStep(adapters, *batch, {0: Totals(ROWS, 30)}, {}, stacked=True, reads_prompts=False)
    with counter() as counted:
        step.nll.sum().backward()
    return counted.get_total_flops()


@pytest.mark.parametrize("checkpointed", [False, True])
def test_prompts_cost_no_mlp_in_the_last_layer(folder: Path, checkpointed: bool):
    """To the last product; and by hand, what the other 39 tokens of each row save: 4 FLOPs a weight
    of the base's MLP, 6 a weight of the adapter's, and with layers computed twice half as much
    again."""
    sizes, adapter = sizes_of(str(folder)), Adapter(4, TARGETS)
    adapters = AdapterSlots(load_model(describe(str(folder)), CPU), [LoRAShape(4, 8.0, TARGETS)])
    counted = counted_step(adapters, checkpointed)
    tokens, squares = ROWS * LENGTH, ROWS * LENGTH**2
    told = flops.train(sizes, adapter, tokens, squares, 30, checkpointed, ROWS * 11)
    square = 4 * sizes.queries * 3 * squares
    assert told + (2 + checkpointed / 2) * square == counted
    base, own = 3 * 64 * 160, 4 * 3 * (64 + 160)
    once = 2 * (base + own) * checkpointed
    saved = flops.train(sizes, adapter, tokens, squares, 30, checkpointed) - told
    assert saved == ROWS * 39 * (4 * base + 6 * own + once)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_where_all_weights_are_trained_each_costs_six(folder: Path, checkpointed: bool):
    """To the last product, of prompts none in the last layer's MLP. And by hand: 2 forward and 4
    backward, with layers computed twice 2 more, the head's and each layer's last one excepted."""
    sizes = sizes_of(str(folder))
    counted = counted_step(WholeModel(load_model(describe(str(folder)), CPU)), checkpointed)
    tokens, squares = ROWS * LENGTH, ROWS * LENGTH**2
    told = flops.train(sizes, None, tokens, squares, 30, checkpointed, ROWS * 11)
    square = 4 * sizes.queries * 3 * squares
    assert told + (2 + checkpointed / 2) * square == counted
    all_read = flops.train(sizes, None, tokens, 0, 30, checkpointed)
    layers = 3 * 4 * 64 * 96 + 3 * 3 * 64 * 160
    again = 2 * checkpointed * (layers - 3 * 64 * 160)
    assert all_read == (6 * layers + again) * tokens + 6 * 64 * 500 * 30


@pytest.mark.parametrize("name", ["Llama", "Olmo2"])
def test_a_layer_is_computed_again_as_far_as_something_is_kept(name: str, tmp_path: Path):
    """To the last product: with few targets not Llama's last one, which OLMo 2 norms."""
    config = getattr(transformers, f"{name}Config")(
        vocab_size=500, hidden_size=64, intermediate_size=160, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=4, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny.make_tokenizer(tmp_path)
    sizes, few, source = sizes_of(str(tmp_path)), ("q_proj", "v_proj"), describe(str(tmp_path))
    adapters = AdapterSlots(load_model(source, CPU), [LoRAShape(4, 8.0, few)])
    counted = counted_step(adapters, checkpointed=True)
    tokens, squares = ROWS * LENGTH, ROWS * LENGTH**2
    told = flops.train(sizes, Adapter(4, few), tokens, squares, 30, True, ROWS * 11)
    assert told + 2.5 * 4 * sizes.queries * 3 * squares == counted


@pytest.mark.parametrize("name", ["Mixtral", "Qwen2Moe", "Qwen3Moe"])
def test_of_experts_those_count_that_read_a_token(name: str, tmp_path: Path):
    """Three of eight, and what chooses them, forward and backward, to the last product; in training
    the last layer's read what answers alone."""
    config = getattr(transformers, f"{name}Config")(
        vocab_size=500, hidden_size=64, intermediate_size=160, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=4, head_dim=16, num_local_experts=8,
        num_experts=8, num_experts_per_tok=3, moe_intermediate_size=56,
        shared_expert_intermediate_size=48,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny.make_tokenizer(tmp_path)
    sizes, adapter = sizes_of(str(tmp_path)), Adapter(4, TARGETS[:4])
    model = load_model(describe(str(tmp_path)), CPU)
    assert sizes.parameters == sum(one.numel() for one in model.parameters())
    tokens, squares = ROWS * LENGTH, ROWS * LENGTH**2
    square = 4 * sizes.queries * 3 * squares
    with counter() as passed, torch.no_grad():
        hidden_states(model, torch.randint(3, 500, (ROWS, LENGTH)))
    assert flops.forward(sizes, tokens, squares) + square / 2 == passed.get_total_flops()
    adapters = AdapterSlots(model, [LoRAShape(4, 8.0, TARGETS[:4])])
    counted = counted_step(adapters)
    told = flops.train(sizes, adapter, tokens, squares, 30, answering=ROWS * 11)
    assert told + 2 * square == counted


def test_an_answer_costs_a_forward_pass_of_all_of_its_tokens(folder: Path):
    sizes = sizes_of(str(folder))
    alone = flops.forward(sizes, 30, 30**2, 10)
    assert flops.answer(sizes, [20, 20], 10) == 2 * alone
    # A token more of the prompt: the decoder's weights twice, and what attention sees more.
    more = flops.answer(sizes, [21], 10) - alone
    assert more == 2 * sizes.decoder_parameters + 2 * 96 * 3 * (31**2 - 30**2)


def test_checkpointed_layers_are_computed_twice(folder: Path):
    """By hand: their forward pass once more, 2 FLOPs a weight and token, but for each last one."""
    sizes, adapter = sizes_of(str(folder)), Adapter(1, ("q_proj",))
    once = flops.train(sizes, adapter, 1000, 0, 0)
    again = flops.train(sizes, adapter, 1000, 0, 0, checkpointed=True)
    own = 3 * (96 + 64)
    assert again - once == 2 * (sizes.decoder_parameters + own - 3 * 64 * 160) * 1000
