"""Safe LoRA of one module by hand and against dense matrices, and of whole models."""

import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from oracles import CPU, draws, task_in
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

import raycib.hooks.safe_lora
import raycib.hooks.salora
from raycib.config import StageSpec
from raycib.errors import UserError
from raycib.hooks.safe_lora import chosen, project
from raycib.methods.safe_lora import SafeLoRA
from raycib.model_files import describe
from raycib.store import Store
from raycib.training.group import STAGES, commit, load, open_slot
from raycib.training.workers import Workers

# One module


def test_safe_lora_by_hand():
    """V = diag(3, 4), |V| = 5: C = V V' / 5 = diag(1.8, 3.2). Of an update of ones it makes rows of
    1.8 and 3.2: cos = (1.8 + 3.2) 2 / sqrt(4 * 2 (1.8² + 3.2²)) = .9629640."""
    a, b = torch.ones(1, 2), torch.ones(2, 1)
    found = project(torch.diag(torch.tensor([3.0, 4.0])), a, b)
    assert found.cosine == pytest.approx(0.9629640, abs=1e-6)
    torch.testing.assert_close(found.b, torch.tensor([[1.8], [3.2]]))


def test_safe_lora_s_c_is_no_projection():
    """C C = diag(3.24, 10.24), not C."""
    v = torch.diag(torch.tensor([3.0, 4.0]))
    once = project(v, torch.eye(2), torch.eye(2)).b
    twice = project(v, torch.eye(2), once).b
    torch.testing.assert_close(once, torch.diag(torch.tensor([1.8, 3.2])))
    torch.testing.assert_close(twice, torch.diag(torch.tensor([3.24, 10.24])))


@pytest.mark.parametrize(("out", "into", "rank"), [(12, 9, 3), (5, 20, 4), (8, 8, 8)])
def test_safe_lora_s_cosine_is_that_of_dense_matrices(out: int, into: int, rank: int):
    """float64 NumPy with C (out x out) and B A written out."""
    v, a, b = draws(out, into), draws(rank, into, seed=1), draws(out, rank, seed=2)
    v64, a64, b64 = (x.double().numpy() for x in (v, a, b))
    c = v64 @ v64.T / np.linalg.norm(v64)
    old, new = (b64 @ a64).ravel(), (c @ b64 @ a64).ravel()
    found = project(v, a, b)
    dense = old @ new / np.linalg.norm(old) / np.linalg.norm(new)
    assert found.cosine == pytest.approx(dense, abs=1e-6)
    np.testing.assert_allclose(found.b, c @ b64, rtol=1e-4, atol=1e-5)


def test_the_exact_projector_is_idempotent_and_keeps_what_lies_in_the_span():
    """V of rank 2 of 6: P P = P, P V = V, and P is not the identity."""
    v, a, b = draws(6, 2) @ draws(2, 9, seed=1), draws(3, 9, seed=2), draws(6, 3, seed=3)
    once = project(v, a, b, exact=True).b
    torch.testing.assert_close(project(v, a, once, exact=True).b, once, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(project(v, a, v[:, :3], exact=True).b, v[:, :3])
    assert (once - b).abs().max() > 0.1


def test_the_exact_projector_of_a_full_rank_update_is_the_identity():
    a, b = draws(3, 9, seed=2), draws(6, 3, seed=3)
    found = project(draws(6, 9), a, b, exact=True)
    assert found.cosine == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(found.b, b, rtol=1e-5, atol=1e-5)


def test_an_alignment_along_the_identity_leaves_the_direction():
    """V = 3 I of size 4: C = 9 I / 6 = 1.5 I, cos = 1."""
    a, b = draws(2, 4), draws(4, 2, seed=1)
    found = project(3 * torch.eye(4), a, b)
    assert found.cosine == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(found.b, 1.5 * b)


@pytest.mark.parametrize("exact", [False, True])
def test_an_update_with_nothing_in_the_alignment_s_span_is_the_least_similar(exact: bool):
    """V along e1 e1', B along e2: C B = 0, so that the cosine is 0 and no module is below it."""
    v, a, b = torch.diag(torch.tensor([2.0, 0.0])), torch.ones(1, 2), torch.tensor([[0.0], [1.0]])
    found = project(v, a, b, exact)
    assert found.cosine == 0 and torch.equal(found.b, 0 * b)


def test_what_rounding_leaves_of_a_weight_s_difference_is_no_direction():
    """As of NumPy's rank: of a 2 x 9 matrix, 9 times float32's eps (1.19e-7) of the largest
    singular value, 1.073e-6. One of 1e-6 counts for nothing, one of 1.2e-6 is a direction."""
    a, b = torch.ones(1, 9), torch.ones(2, 1)
    for size, kept in ((1e-6, [[1.0], [0.0]]), (1.2e-6, [[1.0], [1.0]])):
        v = torch.zeros(2, 9)
        v[0, 0], v[1, 1] = 1.0, size
        torch.testing.assert_close(project(v, a, b, exact=True).b, torch.tensor(kept))


def test_a_module_that_alignment_or_training_did_not_touch_stays():
    a, b = draws(2, 4), draws(4, 2, seed=1)
    assert project(torch.zeros(4, 4), a, b).cosine == 1
    assert torch.equal(project(torch.zeros(4, 4), a, b).b, b)
    assert torch.equal(project(draws(4, 4), a, 0 * b).b, 0 * b)


# Whole models


def derived(folder: Path, store: Store, base: Path | None = None, **options: object) -> StageSpec:
    """A Safe LoRA stage whose parent, of random weights, is stored."""
    parent = tiny.make_stage(folder, model=describe(str(folder / "aligned")), task=task_in(folder))
    if store.get(STAGES, parent.key) is None:
        loaded = load([parent], CPU)
        slot = open_slot(0, parent, loaded, store)
        with torch.no_grad():
            for number, parameter in enumerate(slot.parameters.values()):
                parameter.copy_(0.1 * draws(*parameter.shape, seed=number))
        commit(slot, loaded.adapters, store, Workers())
    method = SafeLoRA.model_validate({"base": describe(str(base or folder / "base")), **options})
    return StageSpec(**{**dict(parent), "method": method, "parent": parent})


def projected(stage: StageSpec, store: Store) -> set[str]:
    """Names of the modules whose B changed."""
    assert stage.parent is not None
    record = store.get(STAGES, stage.parent.key)
    assert record is not None
    before = load_file(record.path("adapter_model.safetensors"))
    slot = open_slot(0, stage, load([stage], CPU), store)
    changed = set()
    for name, parameter in slot.parameters.items():
        if not torch.equal(before[f"base_model.model.{name}.weight"], parameter.detach()):
            assert name.endswith(".lora_B")
            changed.add(name.removesuffix(".lora_B"))
    return changed


def test_a_threshold_below_every_cosine_is_plain_lora(models: Path):
    """-1.01: strength 0, so that no stage of it can be made, and no module is ever chosen."""
    options = SafeLoRA(base=describe(str(models / "base")), threshold=-1.01)
    assert options.is_plain
    assert chosen({"a": -1.0, "b": 0.3}, options) == []
    with pytest.raises(ValidationError, match="strength zero is its parent"):
        derived(models, Store(models / "store"), threshold=-1.01)


def test_a_threshold_of_one_projects_all_modules(models: Path):
    store = Store(models / "store")
    assert len(projected(derived(models, store, threshold=1.0), store)) == 14


@pytest.mark.parametrize("number", [1, 5, 14, 99])
def test_number_projects_exactly_that_many(models: Path, number: int):
    store = Store(models / "store")
    stage = derived(models, store, choose="number", number=number)
    assert len(projected(stage, store)) == min(number, 14)


def test_number_is_exact_where_cosines_are_equal():
    """The official code rounds to five digits and takes all that are at most the n-th."""
    options = SafeLoRA.model_construct(choose="number", number=2)
    assert len(chosen(dict.fromkeys("abcd", 0.25), options)) == 2
    assert chosen({"a": 0.250004, "b": 0.250001, "c": 0.250002, "d": 0.9}, options) == ["b", "c"]


def test_a_base_without_a_tensor_is_the_user_s_to_mend(models: Path, tmp_path: Path):
    lacking = tiny.make_model(tmp_path / "lacking", seed=1)
    tensors = load_file(lacking / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, lacking / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacking lacks the tensor model.layers.1.mlp.up_proj"):
        derived(models, Store(models / "store"), base=lacking, threshold=0.9)


def test_a_base_in_several_files_is_read_by_its_index(models: Path, tmp_path: Path):
    """Every third tensor in a file of its own: the adapter is the one derived from the base in one
    file."""
    sharded = tiny.make_model(tmp_path / "sharded", seed=1)
    tensors = load_file(sharded / "model.safetensors")
    (sharded / "model.safetensors").unlink()
    index = {name: f"model-{number % 3}.safetensors" for number, name in enumerate(tensors)}
    for file in set(index.values()):
        part = {name: tensors[name] for name, place in index.items() if place == file}
        save_file(part, sharded / file, metadata={"format": "pt"})
    listed = json.dumps({"metadata": {}, "weight_map": index})
    (sharded / "model.safetensors.index.json").write_text(listed)
    store, found = Store(models / "store"), []
    for base in (None, sharded):
        stage = derived(models, store, base=base, threshold=1.0)
        slot = open_slot(0, stage, load([stage], CPU), store)
        found.append({name: p.detach().clone() for name, p in slot.parameters.items()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_models_are_read_tensor_by_tensor(models: Path, monkeypatch: pytest.MonkeyPatch):
    """No more than one weight of either model is alive at a time, and each is read once."""
    store = Store(models / "store")
    stage = derived(models, store, threshold=1.0)
    loaded = load([stage], CPU)
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most, read = 0, []
    original = raycib.hooks.safe_lora.safe_open

    class Counted:
        def __init__(self, *args: Any, **more: Any) -> None:
            self.file = original(*args, **more)

        def __enter__(self) -> Any:
            self.opened = self.file.__enter__()
            return self

        def __exit__(self, *error: Any) -> None:
            self.file.__exit__(*error)

        def keys(self) -> list[str]:
            return self.opened.keys()

        def get_tensor(self, name: str) -> Tensor:
            nonlocal most
            tensor = self.opened.get_tensor(name)
            alive.add(tensor)
            read.append(name)
            most = max(most, len(alive))
            return tensor

    monkeypatch.setattr(raycib.hooks.safe_lora, "safe_open", Counted)
    open_slot(0, stage, loaded, store)
    assert len(read) == 2 * 14
    assert most == 2
