"""Stages that train all weights of a model, and the stages that start from what they make.

They stand in for the alignment of a model: a base goes in, an aligned model comes out, and every
cell of a sweep is fine-tuned from it.
"""

import json
from pathlib import Path
from typing import Any

import plain
import pytest
import tiny
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from whole_models import ALONE, CPU, TRAINER, WEIGHTS, distance, logits, trained, whole_stage

from raycib.model_files import TOKENIZER, describe, fingerprint
from raycib.models import load_model, load_tokenizer
from raycib.store import Store
from raycib.training.group import Loaded, load, open_slot
from raycib.training.loop import take_step
from raycib.training.slot import Slot

# What is trained


def test_two_steps_are_those_of_torch_s_adamw_on_the_whole_model(tiny_folder: Path, tmp_path: Path):
    """Against transformers alone in float64, one row at a time. GRADIENT: float32 carries 6e-8, and
    loses a factor of some tens in sums over 10 rows through 2 layers. UPDATE: Adam's first steps
    are signs of gradients, and one within rounding of zero may go the other way."""
    gradient, update = 1e-4, 2e-2
    stage = whole_stage(tiny_folder)
    loaded = load([stage], CPU)
    slot = open_slot(0, stage, loaded, Store(tmp_path))
    model = AutoModelForCausalLM.from_pretrained(tiny_folder / "model").double()
    weights = dict(model.named_parameters())
    assert slot.parameters.keys() == weights.keys()
    assert all(p.requires_grad and p.dtype == torch.float32 for p in slot.parameters.values())
    optimiser = torch.optim.AdamW(weights.values(), lr=1.0, betas=(0.9, 0.999), weight_decay=0.1)
    start = {name: p.detach().clone() for name, p in weights.items()}
    for step in range(2):
        rows = [slot.task.data[i] for i in slot.task.rows(step)]
        take_step(loaded.adapters, [slot], ALONE, 4)
        optimiser.zero_grad()
        total, count = 0.0, plain.tokens_of(rows)
        for row in rows:
            tokens = torch.tensor([[*row.prompt, *row.response]])
            labels = tokens.clone()
            labels[:, : len(row.prompt)] = -100
            loss = model(input_ids=tokens, labels=labels).loss * len(row.response) / count
            loss.backward()
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), 0.5)
        optimiser.param_groups[0]["lr"] = 1e-3 * (step + 1) / 2
        optimiser.step()
        entry = slot.history[-1]
        assert entry.keys() == {"step", "grad_norm", "task"}
        assert entry["task"] == pytest.approx(total, rel=1e-5)
        assert entry["grad_norm"] == pytest.approx(float(norm), rel=gradient)
        assert norm > 0.5, "so it was clipped"
        if step == 0:
            found = {n: p.grad for n, p in slot.parameters.items() if p.grad is not None}
            clipped = {n: p.grad for n, p in weights.items() if p.grad is not None}
            assert found.keys() == clipped.keys() == weights.keys()
            assert distance(found, clipped) < gradient
    moved = {n: p.detach() - start[n] for n, p in slot.parameters.items()}
    assert distance(moved, {n: p.detach() - start[n] for n, p in weights.items()}) < update
    assert min(float(change.norm()) for change in moved.values()) > 0, "every weight moves"


def rounded_slot(folder: Path, store: Path, **trainer: Any) -> tuple[Loaded, Slot]:
    """A stage before its first step, that computes in bfloat16."""
    how = TRAINER.model_copy(update={"precision": "bfloat16", **trainer})
    stage = whole_stage(folder, trainer=how)
    loaded = load([stage], CPU)
    return loaded, open_slot(0, stage, loaded, Store(store))


def test_in_bfloat16_gradients_are_those_of_the_rounded_weights(tiny_folder: Path, tmp_path: Path):
    """Against transformers alone, the model rounded to bfloat16, one row a pass, passes added in
    float32: to the bit where raycib has a row a pass, too. Weights stay float32."""
    loaded, slot = rounded_slot(tiny_folder, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder / "model", dtype=torch.bfloat16)
    rows = [slot.task.data[i] for i in slot.task.rows(0)]
    count, sums = plain.tokens_of(rows), dict[str, Tensor]()
    for row in rows:
        ids, prompt = torch.tensor([[*row.prompt, *row.response]]), len(row.prompt)
        logits = model(input_ids=ids).logits[0, prompt - 1 : -1].float()
        loss = torch.nn.functional.cross_entropy(logits, ids[0, prompt:], reduction="sum") / count
        model.zero_grad()
        loss.backward()
        for name, one in model.named_parameters():
            assert one.grad is not None
            sums[name] = sums.get(name, 0) + one.grad.float()
    take_step(loaded.adapters, [slot], ALONE, 1)
    norm = sum(float(one.norm()) ** 2 for one in sums.values()) ** 0.5
    assert slot.history[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)
    found = {n: p.grad for n, p in slot.parameters.items() if p.grad is not None}
    assert {one.dtype for one in slot.parameters.values()} == {torch.float32}
    clipped = {name: one * (0.5 / norm) for name, one in sums.items()}
    assert distance(found, clipped) < 1e-3


def test_steps_too_small_for_bfloat16_are_not_lost(tiny_folder: Path, tmp_path: Path):
    """Norms begin at 1, below which bfloat16 has steps of 2^-8: what moves one by 1e-3 at a time is
    rounded away where weights are bfloat16. Here ten steps on the same rows add up to some 1e-2,
    and the weight that is read follows."""
    loaded, slot = rounded_slot(
        tiny_folder, tmp_path, batch_size=25, warmup_steps=0, epochs=10, weight_decay=0
    )
    own = slot.parameters["model.norm.weight"]
    read = dict(loaded.adapters.model.named_parameters())["model.norm.weight"]
    start = own.detach().clone()
    assert (start == 1).all() and read.dtype == torch.bfloat16
    take_step(loaded.adapters, [slot], ALONE, 25)
    first = own.detach() - start
    assert 0.9e-3 < float(first.abs().max()) < 1.1e-3
    assert (own[own < 1].bfloat16() == 1).all()
    while slot.active:
        take_step(loaded.adapters, [slot], ALONE, 25)
    down = own.detach() < 1 - 5e-3
    assert down.any() and (read[down] < 1).all()


def test_micro_batches_change_nothing_but_the_order_of_sums(tiny_folder: Path, tmp_path: Path):
    stage = whole_stage(tiny_folder)
    found = []
    for micro in (10, 3):
        loaded = load([stage], CPU)
        slot = open_slot(0, stage, loaded, Store(tmp_path))
        take_step(loaded.adapters, [slot], ALONE, micro)
        found.append({n: p.grad for n, p in slot.parameters.items() if p.grad is not None})
    assert distance(found[1], found[0]) < 1e-5


# What is exported


def test_the_export_is_a_model_folder_that_computes_the_same(tiny_folder: Path, tmp_path: Path):
    """transformers and the tokenizer find all they need; to the bit, as nothing is rounded."""
    stage = whole_stage(tiny_folder)
    loaded = load([stage], CPU)
    slot = open_slot(0, stage, loaded, Store(tmp_path))
    for _ in range(2):
        take_step(loaded.adapters, [slot], ALONE, 10)
    loaded.adapters.export(0, tmp_path / "out", stage.model.source)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(again), logits(loaded.adapters.model))
    before = AutoModelForCausalLM.from_pretrained(tiny_folder / "model")
    assert (logits(again) - logits(before)).abs().max() > 1e-3
    assert fingerprint(tmp_path / "out", TOKENIZER) == stage.model.tokenizer
    tokenizer = load_tokenizer(str(tmp_path / "out"))
    assert tokenizer("w1 w2")["input_ids"] == load_tokenizer(stage.model.source)("w1 w2").input_ids
    assert describe(str(tmp_path / "out")).tokenizer == stage.model.tokenizer


def names_in(file: Path) -> set[str]:
    with safe_open(file, "pt") as opened:
        return set(opened.keys())


def test_tied_weights_are_trained_and_stored_once(made):
    stage, store = made
    folder = trained(stage, store)
    assert "lm_head.weight" not in names_in(folder / WEIGHTS)
    assert "model.embed_tokens.weight" in names_in(folder / WEIGHTS)
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is True
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert "lm_head.weight" not in load([stage], CPU).adapters.parameters_of(0)


def test_weights_that_are_not_tied_are_both_trained_and_stored(tmp_path: Path):
    tiny.make_model(tmp_path / "model")
    config = LlamaConfig.from_pretrained(tmp_path / "model")
    config.tie_word_embeddings = False
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    store = Store(tmp_path / "store")
    folder = trained(whole_stage(tmp_path), store)
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    after = AutoModelForCausalLM.from_pretrained(folder)
    for part in ("lm_head", "model.embed_tokens"):
        one, other = (m.get_submodule(part).weight for m in (before, after))
        assert not torch.equal(one, other)
    assert not torch.equal(after.lm_head.weight, after.model.embed_tokens.weight)


def test_a_bfloat16_model_is_trained_in_float32_and_exported_as_it_came(tmp_path: Path):
    """Small steps would be lost in bfloat16's 8 bits; what is stored is of the type that is loaded
    again."""
    tiny.make_model(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "model")
    stage = whole_stage(tmp_path, model=describe(str(tmp_path / "model"), "bfloat16"))
    assert {p.dtype for p in load([stage], CPU).adapters.parameters_of(0).values()} == {
        torch.float32
    }
    store = Store(tmp_path / "store")
    folder = trained(stage, store)
    with safe_open(folder / WEIGHTS, "pt") as opened:
        assert {opened.get_tensor(name).dtype for name in opened.keys()} == {torch.bfloat16}  # noqa: SIM118
    spec = stage.made_model(store.root)
    assert spec.dtype == "bfloat16"
    assert load_model(spec, CPU).dtype == torch.bfloat16
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
