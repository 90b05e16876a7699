"""A base in 4 bits: the bits are the paper's, and whoever reads a layer's weight, forward or back,
alone or under adapters, reads what they stand for."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from architectures import random_model
from menu import BASE, METHODS
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from raycib.config import ModelSpec, Precision, StageSpec, TrainerSpec
from raycib.evals.engine import GenerationRequest
from raycib.evals.in_process import InProcessGenerator
from raycib.methods.safe_lora import SafeLoRA
from raycib.model_files import describe
from raycib.models import load_model, load_tokenizer
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.adapters.peft_format import read_adapter
from raycib.models.quantized import QuantizedLinear
from raycib.randomness import generator
from raycib.store import Store
from raycib.store.kinds import STAGES
from raycib.training.group import load

CPU = torch.device("cpu")
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
"""QLoRA's appendix E."""
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
DTYPES: tuple[Precision, ...] = ("float32", "bfloat16")


def in_4_bits(folder: Path, dtype: Precision = "float32") -> ModelSpec:
    return describe(str(folder), dtype).model_copy(update={"quantization": "nf4"})


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a model, and the same with the weights that its bits stand for."""
    room = tmp_path_factory.mktemp("quantized")
    tiny.make_model(room / "model", hidden=64)  # of less bitsandbytes' own layer is wrong
    held = load_model(in_4_bits(room / "model"), CPU)
    tiny.make_model(room / "twin", hidden=64)
    twin = AutoModelForCausalLM.from_pretrained(room / "twin")
    for name, layer in layers(held).items():
        twin.get_submodule(name).weight.data.copy_(layer.weight)
    twin.save_pretrained(room / "twin")
    return room


def layers(model: Any) -> dict[str, QuantizedLinear]:
    return {name: one for name, one in model.named_modules() if isinstance(one, QuantizedLinear)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [64, 48])
def test_a_weight_is_the_nearest_of_16_times_the_largest_of_its_64(
    tmp_path: Path, width: int, dtype: Precision
):
    """In float64 from the paper alone; blocks go on from row to row. In 5 of 10,000 places the two
    nearest are equally near to the rounding of float32."""
    tiny.make_model(tmp_path, hidden=width)
    stored = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=getattr(torch, dtype))
    found = layers(load_model(in_4_bits(tmp_path, dtype), CPU))
    assert {name.rpartition(".")[2] for name in found} == set(LINEARS) and len(found) == 14
    code = torch.tensor(NF4, dtype=torch.float64)
    for name, layer in found.items():
        blocks = stored.get_submodule(name).weight.detach().double().reshape(-1, 64)
        largest = blocks.abs().amax(1, keepdim=True)
        nearest = code[(blocks / largest).unsqueeze(-1).sub(code).abs().argmin(-1)] * largest
        weight = layer.weight
        assert weight.dtype == getattr(torch, dtype)
        same = torch.isclose(weight.double().reshape(-1, 64), nearest, rtol=2**-7.9, atol=0)
        assert same.float().mean() > 0.9995
        torch.testing.assert_close(layer.absmax.double(), largest[:, 0], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_way_through_a_layer_has_the_same_weight(room: Path, dtype: Precision):
    """Also of one token, and without gradients, where bitsandbytes has kernels of their own."""
    model = load_model(in_4_bits(room / "model", dtype), CPU)
    ids = torch.randint(5, 40, (3, 9), generator=torch.Generator().manual_seed(0))
    dense = {name: layer.weight.clone() for name, layer in layers(model).items()}
    adapters = AdapterSlots(model, [LoRAShape(2, 4.0, LINEARS[:3])])
    for name, module in adapters.modules.items():
        x = torch.randn(5, module.base.in_features).to(dense[name].dtype).requires_grad_()
        expected = F.linear(x, dense[name])
        for layer in (module, module.base):  # B is zero
            found = layer(x)
            assert torch.equal(found, expected)
            assert torch.equal(layer(x[:1]), F.linear(x[:1], dense[name]))
            with torch.no_grad():
                assert torch.equal(layer(x), expected)
            slope = torch.randn_like(found)
            slopes = [torch.autograd.grad(y, x, slope, retain_graph=True)[0]
                      for y in (found, expected)]  # fmt: skip
            assert torch.equal(*slopes)
    with torch.no_grad(), adapters.disabled():
        alone = model(ids).logits
    adapters.remove()
    again = load_model(in_4_bits(room / "model", dtype), CPU)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, alone), "read twice, from the files"
    assert not any(one.requires_grad for one in model.parameters())


@pytest.mark.parametrize(
    "name", ["Qwen2", "Gemma2", "Cohere", "Olmo2", "Phi", "GPTNeoX", "Mixtral"]
)
def test_a_model_in_4_bits_is_read_as_it_reads_itself(tmp_path: Path, name: str):
    """Biases, capped logits, experts: `load_model` has tried it; its head is not quantised."""
    random_model(name).save_pretrained(tmp_path)
    model = load_model(in_4_bits_of(tmp_path), CPU)
    assert layers(model)
    assert not isinstance(model.get_output_embeddings(), QuantizedLinear)


def in_4_bits_of(folder: Path) -> ModelSpec:
    tiny.make_model(folder / "words")
    for file in (folder / "words").glob("tokenizer*"):
        file.rename(folder / file.name)
    return in_4_bits(folder)


@pytest.mark.parametrize("name", [name for name, one in METHODS.items() if not one.derived])
def test_a_method_trains_as_on_the_weights_that_the_bits_stand_for(
    room: Path, tmp_path: Path, name: str
):
    """Its references and calibrations too: the adapters are the same to the last bit."""
    trained = []
    for model in (in_4_bits(room / "model"), describe(str(room / "twin"))):
        stages = tiny.make_chain(tmp_path, METHODS[name], rows=16, model=model)
        store = Store(str(tmp_path / model.short))
        tiny.train_chain(stages, store)
        trained.append(tiny.adapter_of(store, stages[-1]))
    in_bits, dense = trained
    assert in_bits.keys() == dense.keys()
    assert all(torch.equal(in_bits[name], dense[name]) for name in dense)
    assert any(one.any() for one in dense.values())


def test_safe_lora_projects_onto_what_alignment_changed_in_the_stored_weights(
    room: Path, tmp_path: Path
):
    """What 4 bits round away is larger than what alignment changes."""
    tiny.make_model(tmp_path / "base", seed=1, hidden=64)  # `tiny.make_base` finds it
    method = SafeLoRA(base=BASE, choose="number", number=14)
    stages = tiny.make_chain(tmp_path, method, rows=16, model=in_4_bits(room / "model"))
    store = Store(str(tmp_path / "runs"))
    tiny.train_chain(stages, store)
    before, after = (tiny.adapter_of(store, stage) for stage in stages)
    aligned, base = (
        load_file(one / "model.safetensors") for one in (room / "model", tmp_path / "base")
    )
    for name in (one for one in before if "lora_B" in one):
        weight = name.removeprefix("base_model.model.").replace(".lora_B", "")
        v = aligned[weight] - base[weight]
        expected = v @ (v.T @ before[name]) / v.norm()
        torch.testing.assert_close(after[name], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_is_that_of_peft_on_bitsandbytes(room: Path, tmp_path: Path, dtype: Precision):
    """Its own layer in training mode, the whole batch with its padding at once, torch's AdamW.
    After one step A and B have moved by the learning rate wherever a gradient is; the second sees
    both. float32: gradients agree to 1e-5, and Adam divides them by their own size, so that only
    where they are near zero (its eps) more is left: the updates agree to 1e-4 of their size.
    bfloat16: a product rounds by 2**-9, and we add the update to it in place where PEFT rounds
    between: some per cent of the update."""
    trainer = TrainerSpec(learning_rate=1e-3, batch_size=16, warmup_steps=0, epochs=2)
    stage = tiny.make_stage(tmp_path, 16, model=in_4_bits(room / "model", dtype), trainer=trainer)
    store = Store(str(tmp_path / "runs"))
    tiny.train_chain((stage,), store)
    ours = tiny.adapter_of(store, stage)
    theirs = with_peft(room / "model", stage, dtype)
    assert ours.keys() == theirs.keys()
    start = torch.cat([one.flatten() for one in theirs.values()])
    apart = torch.cat([(ours[name] - theirs[name]).flatten() for name in theirs])
    moved = 2e-3 * start.numel() ** 0.5
    print("APART", dtype, float(apart.norm() / moved))
    assert apart.norm() < {"float32": 1e-4, "bfloat16": 0.1}[dtype] * moved


def with_peft(folder: Path, stage: StageSpec, dtype: Precision) -> dict[str, torch.Tensor]:
    """The same two steps by transformers, PEFT and bitsandbytes alone."""
    loaded = load([stage], CPU)
    rows, start = loaded.encode(stage.task), loaded.adapters
    start.initialise(0, generator(stage.seed, "init"))
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )  # fmt: skip
    base = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), quantization_config=config, device_map={"": "cpu"}
    )
    shape = LoraConfig(r=4, lora_alpha=8, target_modules=list(LINEARS), task_type="CAUSAL_LM")
    model: Any = get_peft_model(base, shape).train()
    own = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for name, parameter in start.parameters_of(0).items():
        own[f"base_model.model.{name}.default.weight"].data.copy_(parameter)
    optimiser = torch.optim.AdamW(own.values(), lr=1e-3, weight_decay=0.0)
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for number, row in enumerate(rows):
        whole = torch.tensor([*row.prompt, *row.response])
        ids[number, : len(whole)] = whole
        labels[number, len(row.prompt) : len(whole)] = whole[len(row.prompt) :]
    for _ in range(2):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = model(input_ids=ids).logits.float()
        F.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
        ).backward()
        torch.nn.utils.clip_grad_norm_(own.values(), 1.0)
        optimiser.step()
    return {name.replace(".default", ""): p.detach() for name, p in own.items()}


def test_an_exported_adapter_names_its_base_and_is_asked_on_it(tmp_path: Path):
    """PEFT reads it without a word and, on bitsandbytes' own layers, gives our answers; the base
    in 32 bits gives others."""
    tiny.make_model(tmp_path / "model", hidden=64)
    larger = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for weight in larger.parameters():  # a small one says one thing to everyone
        weight.data *= 6 if weight.dim() > 1 else 1
    larger.save_pretrained(tmp_path / "model")
    spec = in_4_bits(tmp_path / "model")
    stage = tiny.make_stage(tmp_path, 48, model=spec)
    store = Store(str(tmp_path / "runs"))
    tiny.train_chain((stage,), store)
    record = store.get(STAGES, stage.key)
    assert record
    told = json.loads(record.path("adapter_config.json").read_text())["auto_mapping"]
    assert told["base_model_class"] == "LlamaForCausalLM"
    config = BitsAndBytesConfig(**told["quantization_config"])
    assert (config.load_in_4bit, config.bnb_4bit_quant_type) == (True, "nf4")
    read_adapter(record.folder)
    tokenizer = load_tokenizer(spec.source)
    prompts = [row.prompt for row in load([stage], CPU).encode(stage.task)[:12]]
    asked = [GenerationRequest(str(n), ids, record.folder, 8) for n, ids in enumerate(prompts)]

    def answers(model: ModelSpec) -> list[tuple[int, ...]]:
        engine = InProcessGenerator(
            load_model(model, CPU), tokenizer, max_model_len=64, targets=[LINEARS]
        )
        return [one.token_ids for one in engine.answer(asked)]

    ours = answers(spec)
    base = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", quantization_config=config, device_map={"": "cpu"}
    ).train()  # else bitsandbytes computes in bfloat16 on some CPUs
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = PeftModel.from_pretrained(base, record.folder)
    theirs = []
    for ids in prompts:
        said = list(ids)
        for _ in range(8):
            with torch.no_grad():
                said.append(int(model(torch.tensor([said])).logits[0, -1].argmax()))
            if said[-1] == tokenizer.eos_token_id:
                break
        theirs.append(tuple(said[len(ids) :]))
    assert ours == theirs
    assert ours != answers(describe(str(tmp_path / "model")))
    plain = tiny.make_stage(tmp_path, 48, trainer=TrainerSpec(batch_size=48, warmup_steps=0))
    tiny.train_chain((plain,), store)
    config_file = store.get(STAGES, plain.key).path("adapter_config.json")  # type: ignore[union-attr]
    assert json.loads(config_file.read_text())["auto_mapping"] is None


def test_lm_eval_asks_the_base_in_4_bits(room: Path):
    """Its own backend finds the likelihoods that it finds for the weights the bits stand for."""
    from lm_eval.api.instance import Instance

    from raycib.evals.harness.models import AdapterLM

    asked = [Instance("loglikelihood", {}, ("w1 w2", " w3 w4"), 0)]
    found = []
    for model in (in_4_bits(room / "model"), describe(str(room / "twin"))):
        adapters = AdapterSlots(load_model(model, CPU), [LoRAShape(2, 4.0, LINEARS)])
        lm = AdapterLM(adapters, load_tokenizer(model.source), None)
        found.append(lm.loglikelihood(asked))
    assert found[0] == found[1]
    assert found[0][0][0] < -1
