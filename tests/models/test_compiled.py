"""Compiled parts of a model are the model, up to rounding: where only the order of float32 sums
differs, states and gradients of two layers differ by some of its last places (1.2e-7 each)."""

from typing import Any

import pytest
import torch
from architectures import READ, random_model
from torch import Tensor

from raycib.data.chat import Encoded
from raycib.errors import UserError
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.compiled import compile_parts
from raycib.models.decoder import hidden_states
from raycib.models.group_step import GroupStep
from raycib.models.tensors import Totals, collate, together

TARGETS = ("q_proj", "v_proj", "gate_proj", "down_proj")
ROUNDING = 1e-5
"""Relative to the norm of a gradient."""


def adapters_of(name: str) -> AdapterSlots:
    adapters = AdapterSlots(random_model(name), [LoRAShape(4, 8.0, TARGETS)] * 2)
    for slot in range(2):
        adapters.initialise(slot, torch.Generator().manual_seed(slot))
    return adapters


def rows() -> list[Encoded]:
    draw = torch.Generator().manual_seed(0)
    lengths = [(5, 7), (3, 4), (9, 2), (4, 8)]
    return [
        Encoded(*(tuple(torch.randint(3, 48, (n,), generator=draw).tolist()) for n in pair))
        for pair in lengths
    ]


def gradients(adapters: AdapterSlots, packed: bool) -> list[Tensor]:
    """Of one step of both slots, each with two rows of unequal length."""
    for slot in range(2):
        adapters.begin(slot)
    batches = {slot: collate(rows(), [slot, 3 - slot]) for slot in range(2)}
    totals = dict.fromkeys(batches, Totals(2, 12))
    step = GroupStep(adapters, *together(batches), totals, {}, stacked=True, packed=packed)
    (step.nll.sum() / 12).backward()
    return [one.grad for slot in range(2) for one in adapters.trained(slot) if one.grad is not None]


def differ(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest relative difference."""
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


@pytest.mark.parametrize(
    ("name", "passes"),
    [("Llama", [(False, False), (False, True)]), ("Gemma2", [(True, False)])],
    ids=["Llama, padded, computed once and twice", "Gemma2, end to end"],
)
def test_a_compiled_model_gives_and_learns_the_same(name: str, passes: list[tuple[bool, bool]]):
    """Of two architectures with other norms and activations; after some steps:
    tests/runtime/test_train_worker.py."""
    plain, compiled = adapters_of(name), adapters_of(name)
    with compiled.disabled():
        assert compile_parts(compiled.model) == []
    ids = torch.randint(3, 48, (3, 10))
    with torch.no_grad(), plain.disabled(), compiled.disabled():
        states = [hidden_states(one.model, ids).final_norm for one in (compiled, plain)]
    assert differ(states[:1], states[1:]) < ROUNDING
    for packed, checkpointed in passes:
        plain.checkpointed = compiled.checkpointed = checkpointed
        expected = gradients(plain, packed)
        assert all(one.any() for one in expected)
        assert differ(gradients(compiled, packed), expected) < ROUNDING


def test_what_a_model_has_none_of_is_said():
    """GPT-2: places are learnt, norms are torch's own, its MLP has no gate."""
    (line,) = compile_parts(random_model("GPT2"))
    assert line == "GPT2LMHeadModel: no norms or rotations or gated activations to compile"


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "Mistral", "Granite", "Olmo2", "Gemma3Text"])
def test_each_part_is_found(name: str, monkeypatch: pytest.MonkeyPatch):
    """Nothing is compiled here, but everything is put in its place."""
    seen: list[str] = []

    def compiled(function: Any) -> Any:
        seen.append(getattr(function, "__qualname__", type(function).__name__))
        return function

    monkeypatch.setattr("raycib.models.compiled._compiled", compiled)
    assert compile_parts(random_model(name)) == []
    layers = READ[name]["num_hidden_layers"]
    assert seen.count("apply_rotary_pos_emb") == seen.count("_Gated") == layers
    assert len(seen) > 4 * layers


def test_a_block_that_only_looks_gated_stays(monkeypatch: pytest.MonkeyPatch):
    """One that halves its gate has all four names and computes something else."""
    model = random_model("Llama")
    mlp: Any = model.model.layers[0].mlp
    own = type(mlp).forward
    monkeypatch.setattr(type(mlp), "forward", lambda self, x: own(self, x) / 2)
    monkeypatch.setattr("raycib.models.compiled._compiled", lambda function: function)
    assert compile_parts(model) == ["LlamaForCausalLM: no gated activations to compile"]


def test_hidden_states_that_change_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "raycib.models.compiled._compiled", lambda function: lambda *given: function(*given) * 2
    )
    monkeypatch.setattr("raycib.models.compiled._rotation", lambda block: False)
    with pytest.raises(UserError, match=r"leave execution\.compile out"):
        compile_parts(random_model("Llama"))
