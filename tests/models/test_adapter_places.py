"""Adapters find their places in each architecture and in the engine, or are refused at once."""

import ast
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import READ, WORDS
from peft import PeftModel

from raycib.config import EvalSpec, LoRASpec, PlainLoRA, RowsSpec, RunSpec, StageSpec, TaskSpec
from raycib.errors import UserError
from raycib.evals.generate import LORA_RANKS
from raycib.methods.vaccine import Vaccine
from raycib.model_files import describe
from raycib.model_files.adapter_targets import check_places, check_targets
from raycib.model_files.engine import LARGEST_RANK, NO_ADAPTERS_IN_VLLM, check_engine
from raycib.models import load_model
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.decoder import hidden_states
from raycib.models.head import token_loss

CPU = torch.device("cpu")
ADAPTED_BY_DEFAULT = {
    "Cohere", "Cohere2", "Exaone4", "Gemma", "Gemma2", "Gemma3Text", "Gemma4Text", "Granite",
    "HyperCLOVAX", "Llama", "Mistral", "Olmo2", "Olmo3", "Qwen2", "Qwen3", "SmolLM3",
}  # fmt: skip


def ids() -> torch.Tensor:
    return torch.randint(3, WORDS, (3, 12))


@pytest.mark.parametrize("name", READ)
def test_default_targets_are_there_or_refused_before_anything_starts(saved: Any, name: str):
    source = str(saved(name))
    if name in ADAPTED_BY_DEFAULT:
        check_targets(source, LoRASpec().targets)
        return
    with pytest.raises(UserError, match=r"lora\.targets|experts|cannot be adapted"):
        check_targets(source, LoRASpec().targets)


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("Phi3", ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")),
        ("GPTNeoX", ("query_key_value", "dense", "dense_h_to_4h")),
        ("Falcon", ("query_key_value", "self_attention.dense")),
        ("Mixtral", ("q_proj", "k_proj", "v_proj", "o_proj")),
    ],
)
def test_other_projections_are_adapted_where_they_are_named(
    saved: Any, name: str, targets: tuple[str, ...]
):
    source = str(saved(name))
    check_targets(source, targets)
    adapters = AdapterSlots(load_model(describe(source), CPU), [LoRAShape(2, 4.0, targets)])
    adapters.initialise(0, torch.Generator().manual_seed(0))
    rows = ids()
    states = hidden_states(adapters.model, rows).final_norm.flatten(0, 1)
    token_loss(adapters.model, states, rows.flatten()).sum().backward()
    gradients = {n: p.grad for n, p in adapters.parameters_of(0).items() if n.endswith("lora_B")}
    assert len(gradients) == 2 * len(targets)
    assert all(g is not None and g.norm() > 0 for g in gradients.values())


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "targets", "sizes"),
    [
        ("OPT", ("q_proj", "fc1", "fc2"), {"ffn_dim": 48, "word_embed_proj_dim": 32}),
        ("Qwen2Moe", ("q_proj", "shared_expert.up_proj", "shared_expert_gate"), {}),
    ],
)
def test_layers_that_are_given_all_rows_end_to_end_serve_each_row_with_its_own_adapter(
    saved: Any, tmp_path: Path, name: str, targets: tuple[str, ...], sizes: dict[str, int]
):
    """They failed at the first padded pass, after all of the training. PEFT has each adapter by
    itself."""
    source = str(saved(name, **sizes))
    check_targets(source, targets)
    adapters = AdapterSlots(load_model(describe(source), CPU), [LoRAShape(2, 4.0, targets)] * 2)
    rows, parts = ids(), (slice(0, 1), slice(1, 3))
    for slot in (0, 1):
        for parameter in adapters.parameters_of(slot).values():
            parameter.copy_(0.1 * torch.randn(parameter.shape))
        adapters.export(slot, tmp_path / str(slot), source)
    with adapters.route([(0, 1), (1, 2)]):
        ours = adapters.model(input_ids=rows).logits
    for slot, part in enumerate(parts):
        theirs = PeftModel.from_pretrained(
            load_model(describe(source), CPU), str(tmp_path / str(slot))
        )
        expected = theirs(input_ids=rows[part]).logits
        torch.testing.assert_close(ours[part], expected, rtol=0, atol=1e-4)
        other = theirs(input_ids=rows[parts[1 - slot]]).logits
        assert not torch.allclose(ours[parts[1 - slot]], other, atol=0.01)


@torch.no_grad()
def test_fused_projections_give_their_logits_in_peft_and_have_names_that_vllm_serves(
    saved: Any, tmp_path: Path
):
    """Phi-3's: queries, keys and values are one layer, gate and factor another. Two such adapters
    gave the greedy tokens of `test_adapters_vllm.py` in vLLM 0.29 on a CPU, tried once."""
    source, targets = str(saved("Phi3")), ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    adapters = AdapterSlots(load_model(describe(source), CPU), [LoRAShape(2, 4.0, targets)])
    for parameter in adapters.parameters_of(0).values():
        parameter.copy_(0.1 * torch.randn(parameter.shape))
    adapters.export(0, tmp_path, source)
    rows = ids()
    ours = adapters.model(input_ids=rows).logits
    theirs = PeftModel.from_pretrained(load_model(describe(source), CPU), str(tmp_path))
    torch.testing.assert_close(theirs(input_ids=rows).logits, ours, rtol=0, atol=1e-4)
    with adapters.disabled():
        assert not torch.allclose(adapters.model(input_ids=rows).logits, ours, atol=0.1)
    (place,) = importlib.util.find_spec("vllm").submodule_search_locations  # type: ignore[union-attr]
    code = ast.parse((Path(place) / "model_executor/models/phi3.py").read_text())
    (model,) = (n for n in code.body if isinstance(n, ast.ClassDef))
    fused = next(ast.literal_eval(n.value) for n in model.body if isinstance(n, ast.Assign))
    assert fused == {name: [name] for name in ("qkv_proj", "gate_up_proj")}


def test_what_the_engine_cannot_answer_with_is_refused_before_it_is_trained(saved: Any):
    stage = tiny_stage(saved("GPTNeoX"), ("query_key_value",))
    with pytest.raises(UserError, match="GPTNeoXForCausalLM, which vLLM serves without adapters"):
        check_places([stage])
    check_places([stage], "transformers")
    run = tiny_stage(saved("Phi3"), ("qkv_proj",))
    check_places([run])
    assert max(LORA_RANKS) == LARGEST_RANK
    wide = run.final.model_copy(update={"lora": LoRASpec(rank=513, targets=("qkv_proj",))})
    wide = run.model_copy(update={"stages": (wide,)})
    with pytest.raises(UserError, match="rank 513"):
        check_places([wide])
    check_places([wide], "transformers")


def yarn(**more: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "yarn", "factor": 8.0, **more}}


UNSCALED = yarn(attention_factor=1.0)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"architectures": ["PersimmonForCausalLM"]}, "vLLM does not list"),
        ({"architectures": ["Glm4ForCausalLM"]}, "'gate_up_proj' of a Glm4ForCausalLM for several"),
        (UNSCALED, "YaRN"),  # vLLM: 0.1 ln 8 + 1 = 1.2079
        (yarn(mscale=1.0, mscale_all_dim=1.0), "YaRN"),  # Ministral 3: a ratio of 1
        ({"rope_scaling": {"full_attention": UNSCALED["rope_parameters"]}}, "YaRN"),
        (yarn(), None),
        (yarn(attention_factor=1.2079441541679836), None),  # OLMo 3 says so
        (UNSCALED | {"kv_lora_rank": 8}, None),
        ({"rope_parameters": {"rope_type": "yarn", "factor": "8"}, "architectures": None}, None),
    ],
)  # fmt: skip
def test_what_vllm_would_compute_otherwise_is_refused(
    saved: Any, tmp_path: Path, fields: dict[str, Any], says: str | None
):
    """A tiny Qwen3 with `attention_factor` 1, and a Ministral 3 as transformers configures it, had
    other greedy tokens in vLLM 0.29 on a CPU; a Persimmon too; of GLM-4 it refused the adapter."""
    config = json.loads((saved("Llama") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    if says is None:
        check_engine(str(tmp_path), ("gate_up_proj",))
        return
    with pytest.raises(UserError, match=says) as refused:
        check_engine(str(tmp_path), ("gate_up_proj",))
    assert "--local" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_proposed_in_place_of_a_target_can_be_adapted(saved: Any):
    """Experts and routers cannot, of which transformers makes no linear layers."""
    for name in ("Mixtral", "Qwen2Moe"):
        source = str(saved(name))
        with pytest.raises(UserError, match="experts") as refused:
            check_targets(source, ["w1" if name == "Mixtral" else "down_proj"])
        proposed = json.loads(str(refused.value).partition("lora.targets=")[2].rstrip("'"))
        assert {"q_proj", "k_proj", "v_proj", "o_proj"} <= set(proposed)
        check_targets(source, proposed)
        AdapterSlots(load_model(describe(source), CPU), [LoRAShape(2, 4.0, tuple(proposed))])


def test_vaccine_needs_one_attention_block_a_layer_and_says_so_at_once(saved: Any):
    """Whose layers are convolutions and attention in turn."""
    hybrid = saved("Lfm2", layer_types=["conv", "full_attention"])
    check_places([tiny_stage(hybrid, ("q_proj",))])
    with pytest.raises(UserError, match="layer 0 has 0 attention blocks"):
        check_places([tiny_stage(hybrid, ("q_proj",), Vaccine(rho=2.0))])


def tiny_stage(folder: Path, targets: tuple[str, ...], method: Any = None) -> RunSpec:
    rows = {"name": "rows", "source": "-", "rows": "0" * 64, "num_rows": 8, "max_length": 16}
    stage = StageSpec(
        model=describe(str(folder)),
        task=TaskSpec(**rows),
        method=method or PlainLoRA(),
        lora=LoRASpec(targets=targets),
    )
    asked = RowsSpec(**rows, max_tokens=4)
    return RunSpec(stages=(stage,), evals=EvalSpec(harmful=asked, held_out=asked))


def test_the_list_of_architectures_without_adapters_is_vllms():
    """Read from its source: importing it takes long."""
    (place,) = importlib.util.find_spec("vllm").submodule_search_locations  # type: ignore[union-attr]
    folder = Path(place) / "model_executor" / "models"
    bases, registry = {}, {}
    for file in folder.glob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                names = (ast.unparse(base).split("[")[0] for base in node.bases)
                bases[node.name] = [name.split(".")[-1] for name in names]
            if isinstance(node, ast.Assign) and "_TEXT_GENERATION_MODELS" in ast.unparse(node)[:30]:
                registry = ast.literal_eval(node.value)

    def adapts(name: str, seen: frozenset[str] = frozenset()) -> bool:
        more = set(bases.get(name, ())) - seen
        return name == "SupportsLoRA" or any(adapts(base, seen | {name}) for base in more)

    assert len(registry) > 100
    assert {a for a, (_, name) in registry.items() if not adapts(name)} == NO_ADAPTERS_IN_VLLM


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "proj", "norm", "experts.0.w1"])
def test_what_is_no_linear_layer_of_the_decoder_is_no_target(saved: Any, target: str):
    with pytest.raises(UserError, match=repr(target)):
        check_targets(str(saved("Mixtral")), [target])


def test_gpt2s_transposed_layers_are_refused_by_both(saved: Any):
    source = str(saved("GPT2"))
    with pytest.raises(UserError, match="cannot be adapted"):
        check_targets(source, ["c_attn"])
    with pytest.raises(UserError, match="no linear layer is named 'c_attn'"):
        AdapterSlots(load_model(describe(source), CPU), [LoRAShape(2, 4.0, ("c_attn",))])
