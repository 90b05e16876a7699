"""L2-SP and EWC against their definitions: dense matrices in float64, and a Fisher of Hugging
Face's model with autograd alone."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from raycib.config import PlainLoRA, TaskSpec
from raycib.invariances.bench import adapter_of, distance
from raycib.methods.case2 import Case2
from raycib.methods.ewc import EWC
from raycib.methods.l2_sp import L2SP
from raycib.model_files import find
from raycib.models.adapters import Update
from raycib.objectives.ewc import FisherDistance
from raycib.objectives.l2_sp import StartDistance
from raycib.store import Store
from raycib.training.loop import take_step
from raycib.training.workers import Workers

B = torch.tensor([[1.0, 2], [0, 1], [3, 0]])
A = torch.tensor([[1.0, 0, 2, 1], [0, 1, 1, -1]])
"""B A = [[1, 2, 4, -1], [0, 1, 1, -1], [3, 0, 6, 3]]: squares 79."""
SAFETY = TaskSpec(name="refusals", source="nowhere.jsonl", rows="e" * 64, num_rows=12)


def step_at(b: Tensor, a: Tensor, share: float = 1.0) -> Any:
    return SimpleNamespace(updates={"model.q": Update(a, b, 2.0)}, share=share)


def test_the_distance_from_the_start_by_hand():
    """From B0 = 0 it is half of 4 * 79, whatever A0 was; of half the rows, half of that. From the
    weights themselves it is 0 to the bit, and so is its gradient."""
    away = StartDistance({"model.q": Update(torch.randn(2, 4), torch.zeros(3, 2), 2.0)}, 0.3)
    (term,) = away(step_at(B, A)).values()
    assert (float(term.value), term.weight) == (158.0, 0.3)
    assert float(away(step_at(B, A, 0.5))["from_start"].value) == 79.0
    here = StartDistance({"model.q": Update(A, B, 2.0)}, 1.0)
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    value = here(step_at(b, a))["from_start"].value
    assert float(value.detach()) == 0
    assert all(not part.any() for part in torch.autograd.grad(value, (a, b)))


def test_the_distance_from_any_start_is_that_of_dense_matrices():
    a0, b0, a, b = (torch.randn(*size) for size in ((2, 4), (3, 2), (2, 4), (3, 2)))
    found = StartDistance({"model.q": Update(a0, b0, 2.0)}, 1.0)(step_at(b, a))["from_start"].value
    dense = 2.0 * (b.double() @ a.double() - b0.double() @ a0.double())
    assert float(found) == pytest.approx(float(dense.square().sum() / 2), rel=1e-5)


def test_from_the_aligned_model_l2_sp_is_case_2_at_half_its_weight(tiny_folder: Path, tmp_path):
    """Two code paths, one number; after another stage they part: one holds to that stage's weights,
    the other to the aligned model's."""
    store = Store(tmp_path)
    pair = [tiny.make_stage(tiny_folder, method=m) for m in (L2SP(lam=0.02), Case2(lam=0.01))]
    for stage in pair:
        tiny.train_chain((stage,), store)
    assert distance(*(adapter_of(store, stage) for stage in pair)) < 1e-4
    parent = tiny.make_stage(tiny_folder, method=PlainLoRA())
    first = {}
    for method in (L2SP(lam=0.02), Case2(lam=0.01)):
        stage = tiny.make_stage(tiny_folder, method=method, parent=parent, seed=1)
        adapters, (slot,) = tiny.open_slots([stage], store)
        take_step(adapters, [slot], Workers(), 16)
        first |= slot.history[0]
    assert first["from_start"] == 0
    assert first["distance"] > 0.1


def test_the_fisher_is_the_mean_squared_gradient_of_each_answer(tiny_folder: Path, tmp_path):
    """Of Hugging Face's own model, one row after the other, with respect to the weights."""
    method = tiny.grounded(EWC(safety=SAFETY, fisher_rows=5), tiny_folder)
    stage = tiny.make_stage(tiny_folder, method=method)
    store = Store(tmp_path)
    _, (slot,) = tiny.open_slots([stage], store)
    *_, objective = slot.objective.parts  # type: ignore[union-attr]
    assert len(store.keys("fishers")) == 1, "kept for all seeds and strengths"

    model = AutoModelForCausalLM.from_pretrained(find(stage.model.source), dtype=torch.float64)
    names = [name for name, _ in objective.named_buffers()]
    weights = [model.get_submodule(name.replace("/", ".")).weight for name in names]
    expected = [torch.zeros_like(weight) for weight in weights]
    _, (other,) = tiny.open_slots([tiny.make_stage(tiny_folder, task=method.safety)], store)
    for row in other.task.data[:5]:
        ids = torch.tensor([[*row.prompt, *row.response]])
        log_p = model(ids).logits[0, :-1].log_softmax(-1)
        places = range(len(row.prompt) - 1, ids.shape[1] - 1)
        said = sum(log_p[n, ids[0, n + 1]] for n in places)
        for total, slope in zip(expected, torch.autograd.grad(said, weights), strict=True):
            total += slope.square() / 5
    assert len(names) == 14
    for name, value in zip(names, expected, strict=True):
        found = objective.get_buffer(name).double()
        assert distance(found, value) < 1e-4, name


def test_the_weighted_distance_is_that_of_dense_matrices():
    weights = torch.rand(3, 4)
    (term,) = FisherDistance({"model.q": weights}, 0.5)(step_at(B, A, 0.25)).values()
    dense = (2.0 * B.double() @ A.double()).square() * weights.double()
    assert float(term.value) == pytest.approx(0.25 * float(dense.sum() / 2), rel=1e-5)
    assert term.weight == 0.5
    ones = FisherDistance({"model.q": torch.ones(3, 4)}, 1.0)(step_at(B, A))["fisher"].value
    assert float(ones) == 158.0
