"""The memory model against bytes that torch holds: exact for weights and adapters, and within a
stated part for what a micro-batch keeps for its backward pass."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import tiny
import torch
import transformers

from raycib.costs.memory import (
    Activations,
    Adapter,
    activations,
    adapter_bytes,
    layer_bytes,
    said,
    unpacked_bytes,
    weight_bytes,
)
from raycib.costs.sizes import from_tensors, sizes_of
from raycib.data.chat import Encoded
from raycib.model_files import describe
from raycib.models import load_model
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.decoder import hidden_states, packed_states
from raycib.models.group_step import GroupStep
from raycib.models.head import token_loss
from raycib.models.packing import rows_apart
from raycib.models.step import steps_of
from raycib.models.tensors import Totals, collate, together
from raycib.objectives.kl import reference_divergence

SIZES: dict[str, Any] = {
    "vocab_size": 500, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "head_dim": 24, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "num_local_experts": 8, "num_experts": 8, "num_experts_per_tok": 3,
    "moe_intermediate_size": 56, "shared_expert_intermediate_size": 48,
}  # fmt: skip
LLAMAS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FUSED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
ARCHITECTURES = {
    # What of the measured bytes the formula leaves out: Gemma's copies of its norms' weights, the
    # buffers of a layer's input; Olmo2 and Cohere hand the first layer an input that is kept twice.
    "Llama": 0.003, "Qwen2": 0.003, "Qwen3": 0.003, "Mistral": 0.003, "Granite": 0.003,
    "Gemma": 0.003, "Gemma2": 0.003, "Gemma3Text": 0.003, "Phi3": 0.003,
    "Olmo2": 0.04, "Cohere": 0.05, "Mixtral": 0.003, "Qwen2Moe": 0.003, "Qwen3Moe": 0.003,
}  # fmt: skip
EXPERTS = ("Mixtral", "Qwen2Moe", "Qwen3Moe")
CAPPED = "Gemma2 with a cap on scores"
ROWS, LENGTH = 3, 130
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("sizes")

    def make(name: str, **more: int) -> str:
        folder = root / f"{name} {more}"
        if not folder.exists():
            config = getattr(transformers, f"{name.partition(' ')[0]}Config")(**(SIZES | more))
            # A cap wants eager attention, which keeps its scores.
            config.attn_logit_softcapping = 50.0 if name == CAPPED else None
            transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            tiny.make_tokenizer(folder)
        return str(folder)

    return make


def targets_of(name: str) -> tuple[str, ...]:
    return FUSED if name == "Phi3" else LLAMAS[:4] if name in EXPERTS else LLAMAS


def slots(
    source: str,
    targets: tuple[str, ...],
    dtype: str,
    count: int = 2,
    quantization: str | None = None,
) -> AdapterSlots:
    model = describe(source, dtype).model_copy(update={"quantization": quantization})
    adapters = AdapterSlots(load_model(model, CPU), [LoRAShape(4, 8.0, targets)] * count)
    for slot in range(count):
        adapters.initialise(slot, torch.Generator().manual_seed(slot))
    return adapters


def kept_bytes(adapters: AdapterSlots, packed: bool = False) -> int:
    """What torch saves for the backward pass of a micro-batch, each storage once; weights and
    buffers of the model, which are there anyway, left out. `packed` rows are shorter and longer by
    a token than they are otherwise, and attention pads each to 160: nearly a quarter."""
    model = adapters.model
    there = [*model.parameters(), *model.buffers()]
    known = {tensor.untyped_storage().data_ptr() for tensor in there}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in known:
            kept[place] = tensor  # held, so that its place is not given to another
        return tensor

    ids = torch.randint(3, 500, (ROWS * adapters.num_slots, LENGTH))
    lengths = [LENGTH + more for more in (1, 0, -1) * adapters.num_slots]
    mixed = model.dtype == torch.bfloat16
    each = ROWS * LENGTH if packed else ROWS
    with (
        adapters.route([(slot, each) for slot in range(adapters.num_slots)], True),
        rows_apart(model, lengths) if packed else nullcontext(),
        torch.autocast("cpu", torch.bfloat16, enabled=mixed),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        if packed:
            packed_states(model, ids.flatten(), lengths)
        else:
            hidden_states(model, ids)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def peak_of(work: Callable[[], object]) -> int:
    """Bytes: the most that is alive at once of what `work` allocates, by torch's profiler."""
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
    alive = peak = 0
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    return peak


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_micro_batch_keeps_what_is_foretold(saved: Any, name: str, dtype: str, packed: bool):
    source, targets = saved(name), targets_of(name)
    found = kept_bytes(slots(source, targets, dtype), packed)
    told = activations(
        sizes_of(source), [Adapter(4, targets)] * 2, dtype, 2 * ROWS * LENGTH, 0, False, packed
    )
    assert told.kept == pytest.approx(found, rel=ARCHITECTURES[name] + 0.01)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [CAPPED, "Llama"])
def test_attention_that_keeps_its_scores_keeps_what_is_foretold(
    saved: Any, name: str, dtype: str, packed: bool
):
    """A model's own choice, for its cap, and a person's. Padding counts twice: to 160 of 130."""
    adapters = slots(saved(name), LLAMAS, dtype)
    if name == "Llama":
        adapters.model.set_attn_implementation("eager")
    assert adapters.model.config._attn_implementation == "eager"
    shape = [Adapter(4, LLAMAS)] * 2, dtype, 2 * ROWS * LENGTH, 0, False, packed
    sizes = sizes_of(saved(name))
    assert sizes.capped is (name == CAPPED)
    told, without = (activations(sizes, *shape, seen).kept for seen in (LENGTH + packed, 0))
    assert told == pytest.approx(kept_bytes(adapters, packed), rel=0.03)
    assert told > 1.25 * without


def test_fewer_targets_keep_less_and_a_frozen_layer_keeps_no_input(saved: Any):
    """The Trade-offs paper's q and v."""
    source, few = saved("Llama"), ("q_proj", "v_proj")
    found = kept_bytes(slots(source, few, "float32"))
    told = activations(
        sizes_of(source), [Adapter(4, few)] * 2, "float32", 2 * ROWS * LENGTH, 0, False
    ).kept
    assert told == pytest.approx(found, rel=0.02)
    whole = layer_bytes(sizes_of(source), 0, Adapter(4, LLAMAS), "float32")
    # Not the MLP's input, nor that of down_proj, nor five of seven products with A.
    less = whole - layer_bytes(sizes_of(source), 0, Adapter(4, few), "float32")
    assert less == 4 * (64 + 160 + 5 * 4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_and_adapters_are_exact(saved: Any, name: str):
    source, targets = saved(name), targets_of(name)
    adapters = slots(source, targets, "bfloat16", count=1)
    base = sum(w.nbytes for n, w in adapters.model.named_parameters() if "lora_" not in n)
    assert weight_bytes(sizes_of(source), "bfloat16") == base
    own = list(adapters.parameters_of(0).values())
    optimiser = torch.optim.AdamW(own)
    torch.stack([one.sum() for one in own]).sum().backward()
    optimiser.step()
    state = [t for one in own for t in optimiser.state[one].values() if t.dim()]
    held = [*own, *(one.grad for one in own if one.grad is not None), *state]
    assert adapter_bytes(sizes_of(source), Adapter(4, targets)) == sum(t.nbytes for t in held)


def test_sizes_are_the_configurations_own(saved: Any):
    found = sizes_of(saved("Qwen3"))
    assert (found.width, found.queries, found.keys) == (64, 96, 48)
    assert (len(found.layers), found.vocabulary) == (3, 500)
    assert sorted(found.norms[0]) == [
        "input_layernorm.weight", "post_attention_layernorm.weight",
        "self_attn.k_norm.weight", "self_attn.q_norm.weight",
    ]  # fmt: skip


def test_a_head_in_chunks_holds_one_of_them(saved: Any, monkeypatch: pytest.MonkeyPatch):
    """Ten times as many scored tokens need no more logits, only more states; and two of every
    token, scored or not."""
    sizes = sizes_of(saved("Llama"))
    monkeypatch.setattr("raycib.costs.memory.LOGITS_AT_ONCE", 500 * 100)

    def head(scored: int, tokens: int = 4000) -> Activations:
        return activations(sizes, [Adapter(4, LLAMAS)], "float32", tokens, scored, False)

    assert head(50, 5000).head - head(50).head == 1000 * 2 * 64 * 4
    assert head(1000).head - head(100).head == 900 * 64 * 4
    assert head(100).head - head(50).head > 50 * 500 * 8


@pytest.mark.parametrize("at_once", [50, 1000])
def test_the_heads_peak_covers_what_its_backward_pass_allocates(
    saved: Any, at_once: int, monkeypatch: pytest.MonkeyPatch
):
    """Counted by torch's profiler of memory: all that is alive at once. Of chunks it is one."""
    for module in ("raycib.costs.memory", "raycib.models.head"):
        monkeypatch.setattr(f"{module}.LOGITS_AT_ONCE", 500 * at_once)
    model = load_model(describe(saved("Llama"), "float32"), CPU)
    states, labels = torch.randn(200, 64, requires_grad=True), torch.randint(3, 500, (200,))
    peak = peak_of(lambda: token_loss(model, states, labels).sum().backward())
    told = activations(sizes_of(saved("Llama")), [Adapter(4, LLAMAS)], "float32", 0, 200, False)
    assert 0.8 * told.head <= peak <= 1.1 * told.head


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_divergence_holds_no_more_than_a_loss(
    saved: Any, direction: Any, monkeypatch: pytest.MonkeyPatch
):
    """Though of each logit it has more than twice as much at a time: it takes fewer tokens."""
    for module in ("raycib.costs.memory", "raycib.models.head"):
        monkeypatch.setattr(f"{module}.LOGITS_AT_ONCE", 500 * 100)
    rows = [Encoded((3, 4), tuple(range(5, 30)))] * 8
    batch = together({0: collate(rows, range(8))})
    adapters = slots(saved("Llama"), LLAMAS, "float32", count=1)
    step = steps_of(GroupStep(adapters, *batch, {0: Totals(8, 200)}, {}))[0]
    step.states("response_states"), step.reference_tokens("response_states")  # both are there
    found = peak_of(lambda: reference_divergence(step, direction))
    told = activations(sizes_of(saved("Llama")), [Adapter(4, LLAMAS)], "float32", 0, 200, False)
    assert 0.8 * told.head <= found <= 1.1 * told.head


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", ["Llama", "Qwen3Moe", CAPPED])
def test_a_whole_pass_holds_at_most_what_is_foretold(
    saved: Any, name: str, dtype: str, checkpointed: bool
):
    """Of six layers and two slots: all that is alive at once, forward and backward, head included;
    with checkpointed layers a fourth of it."""
    source, targets = saved(name, num_hidden_layers=6), targets_of(name)
    adapters, sizes = slots(source, targets, dtype), sizes_of(source)
    adapters.checkpointed = checkpointed
    rows = [Encoded(tuple(range(3, 44)), tuple(range(5, 44)))] * 8
    batches = {slot: collate(rows, list(range(8))) for slot in range(2)}

    def once() -> None:
        totals = dict.fromkeys(batches, Totals(8, 312))
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = GroupStep(adapters, *together(batches), totals, {}).nll.sum()
        loss.backward()

    once()  # afterwards every gradient has its place
    peak = peak_of(once)
    told = activations(
        sizes, [Adapter(4, targets)] * 2, dtype, 16 * 80, 16 * 39, checkpointed,
        seen=80 * sizes.capped,
    )  # fmt: skip
    assert 0.95 * peak <= told.total <= 1.15 * peak


def test_llama_of_eight_billion():
    """By hand, from its published configuration: weights 8,030,261,248; an adapter of rank 32 on
    all linears 83,886,080; a token of a layer 2 (2 x 4096 + 2 x 4096 + 2 x 1024 + 4 x 14336 + 7 x
    32) + 4 (2 x 4097 + 32)."""
    shapes = {"model.embed_tokens.weight": (128256, 4096), "lm_head.weight": (128256, 4096)}
    linears = {
        "self_attn.q_proj": (4096, 4096), "self_attn.k_proj": (1024, 4096),
        "self_attn.v_proj": (1024, 4096), "self_attn.o_proj": (4096, 4096),
        "mlp.gate_proj": (14336, 4096), "mlp.up_proj": (14336, 4096),
        "mlp.down_proj": (4096, 14336),
    }  # fmt: skip
    names = [f"model.layers.{n}.{name}" for n in range(32) for name in linears]
    shapes |= {f"{name}.weight": linears[name.split(".", 3)[3]] for name in names}
    norms = ("input_layernorm", "post_attention_layernorm")
    shapes |= {f"model.layers.{n}.{one}.weight": (4096,) for n in range(32) for one in norms}
    shapes["model.norm.weight"] = (4096,)
    config = {
        "hidden_size": 4096, "vocab_size": 128256, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "tie_word_embeddings": False,
    }  # fmt: skip
    sizes = from_tensors(shapes, names, config)
    assert sizes.parameters == 8_030_261_248
    adapter = Adapter(32, LLAMAS)
    assert sizes.adapter_parameters(32, LLAMAS) == 83_886_080
    assert layer_bytes(sizes, 0, adapter, "bfloat16") == 2 * 76_000 + 4 * 8_226
    # The preset's 4 adapters x 8 rows of 1,024 tokens: no GPU holds that.
    whole = activations(sizes, [adapter] * 4, "bfloat16", 32768, 16384, checkpointed=False)
    assert 180e9 < whole.total < 210e9
    again = activations(sizes, [adapter] * 4, "bfloat16", 32768, 16384, checkpointed=True)
    assert again.total < 25e9


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["Llama", "Qwen2", "Gemma2", "Phi3"])
def test_a_base_in_4_bits_is_as_large_as_foretold(saved: Any, name: str, dtype: str):
    """Every byte that it holds; and what is made of the bits is not kept for the backward pass,
    whether a layer is adapted or not."""
    source, sizes = saved(name), sizes_of(saved(name))
    targets = targets_of(name)[:1]
    held = slots(source, targets, dtype, quantization="nf4")
    bits = [tensor for n, tensor in held.model.named_buffers() if n.endswith(("packed", "absmax"))]
    floats = [weight for n, weight in held.model.named_parameters() if "lora_" not in n]
    found = sum(tensor.nbytes for tensor in (*bits, *floats))
    assert weight_bytes(sizes, dtype, "nf4") == found
    assert found < 0.65 * weight_bytes(sizes, dtype)
    assert kept_bytes(held) == kept_bytes(slots(source, targets, dtype))


def test_a_layers_weight_is_unpacked_while_it_is_computed_with(saved: Any):
    """By hand: the MLP's 160 x 64 weights are the largest, and two are there at once."""
    sizes = sizes_of(saved("Llama"))
    assert unpacked_bytes(sizes, "bfloat16", "nf4") == 2 * 160 * 64 * 2
    assert unpacked_bytes(sizes, "bfloat16") == 0


@pytest.mark.parametrize(
    ("size", "told"),
    [(999, "999 bytes"), (1000, "0.977 KiB"), (2**20, "1 MiB"), (1003 * 2**20, "0.979 GiB"),
     (999 * 2**20, "999 MiB"), (67.1 * 2**30, "67.1 GiB"), (1500 * 2**30, "1.46 TiB")],
)  # fmt: skip
def test_bytes_are_told_in_three_digits(size: float, told: str):
    """1,003 MiB stood in plans as 1e+03 MiB."""
    assert said(size) == told
