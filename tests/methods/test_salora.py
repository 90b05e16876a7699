"""SaLoRA by hand, against NumPy's singular vectors, and from the start to the export."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from oracles import CPU, ROWS, SAFETY, draws, task_in
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

import raycib.hooks.safe_lora
import raycib.hooks.salora
from raycib.config import StageSpec
from raycib.data.chat import Encoded
from raycib.hooks import AdapterContext
from raycib.hooks.salora import output_directions, start_off_safety
from raycib.methods.salora import SaLoRA
from raycib.model_files import describe, find
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.store import Store
from raycib.training.group import STAGES, commit, load, open_slot
from raycib.training.workers import Workers


class Toy(PreTrainedModel):
    """A model of one linear layer (W = I) whose input is e1, but for `also`, at every token."""

    def __init__(self, dim: int, also: Tensor | None = None) -> None:
        super().__init__(PreTrainedConfig())
        self.linear = nn.Linear(dim, dim, bias=False)
        nn.init.eye_(self.linear.weight)
        self.norm = nn.Identity()
        self.inputs = torch.eye(dim)[:1] if also is None else also

    def get_decoder(self) -> "Toy":
        return self

    def forward(self, input_ids: Tensor, use_cache: bool) -> Any:
        x = self.inputs[input_ids % len(self.inputs)]
        return SimpleNamespace(last_hidden_state=self.norm(self.linear(x)))


def opening(model: Toy, store: Store, options: SaLoRA, rank: int, stage: Any = None) -> Any:
    """A slot on `model`, about to start."""
    adapters = AdapterSlots(model, [LoRAShape(rank, 2.0 * rank, ("linear",))])
    lora = SimpleNamespace(targets=["linear"], rank=rank)
    spec = SimpleNamespace(identity=lambda: {"toy": str(store)})
    stage: Any = SimpleNamespace(model=spec, lora=lora, task=options.safety)
    return AdapterContext(adapters, 0, stage, store, lambda _: ROWS)


def test_salora_by_hand(tmp_path: Path):
    """All X along e1 and W = I: X W' lies along e1, so C = diag(0, 1, ..., 1). Read off the module:
    with B = I its factors give C itself."""
    options = SaLoRA(safety=SAFETY, safety_rank=1, init="default")
    made = opening(Toy(5), Store(tmp_path), options, rank=5)
    start_off_safety(options)(made)
    module = made.adapters.modules["linear"]
    with torch.no_grad():
        module.lora_B["0"].copy_(torch.eye(5))
    _, c, _ = module.factors(0)
    torch.testing.assert_close(c, torch.diag(torch.tensor([0.0, 1, 1, 1, 1])))


def test_salora_s_directions_are_of_w_x_without_the_bias(tmp_path: Path):
    """W = I, x = e1 and a bias of 3 e2, which is no direction of X W': C = diag(0, 1, 1). With it
    the first one would be (1, 3, 0) / sqrt(10)."""
    options = SaLoRA(safety=SAFETY, safety_rank=1, init="default")
    model = Toy(3)
    model.linear.bias = nn.Parameter(torch.tensor([0.0, 3.0, 0.0]))
    made = opening(model, Store(tmp_path), options, rank=3)
    start_off_safety(options)(made)
    fixed = made.adapters.modules["linear"].fixed[0]
    torch.testing.assert_close(fixed @ fixed.T, torch.diag(torch.tensor([1.0, 0, 0])))


@pytest.mark.parametrize("at_once", [16, 1])
def test_salora_s_directions_are_of_all_response_tokens_and_no_others(
    at_once: int, monkeypatch: pytest.MonkeyPatch
):
    """Token n has the output e_n. Responses are 0 0 0 1 and 1, though 0 pads as well, and the
    prompts are of 2: the second moments are 3 for e0, 2 for e1 and 0 for e2. By hand the bases are
    those, the largest first. With prompts e2 would be before e1; without token 0 e0 comes last."""
    monkeypatch.setattr(raycib.hooks.salora, "ROWS_AT_ONCE", at_once)
    adapters = AdapterSlots(Toy(3, torch.eye(3)), [LoRAShape(1, 2.0, ("linear",))])
    rows = [Encoded((2, 2, 2), (0, 0, 0, 1)), Encoded((2,), (1,))]
    found = output_directions(adapters, {"linear": adapters.modules["linear"].base}, rows)
    torch.testing.assert_close(found["linear"].abs(), torch.eye(3))


def test_salora_s_c_is_a_projection_of_trace_d_minus_r(tmp_path: Path):
    """C C = C and tr C = 7 - 3."""
    options = SaLoRA(safety=SAFETY, safety_rank=3, init="default")
    made = opening(Toy(7, draws(11, 7)), Store(tmp_path), options, rank=7)
    start_off_safety(options)(made)
    module = made.adapters.modules["linear"]
    with torch.no_grad():
        module.lora_B["0"].copy_(torch.eye(7))
        c = module.factors(0)[1].clone()
    torch.testing.assert_close(c @ c, c, atol=1e-6, rtol=0)
    assert float(c.trace()) == pytest.approx(4, abs=1e-5)


def salora_stage(folder: Path, **options: object) -> StageSpec:
    method = SaLoRA.model_validate({"safety": task_in(folder, "safety"), **options})
    model = describe(str(folder / "aligned"))
    return tiny.make_stage(folder, model=model, task=task_in(folder), method=method)


def test_salora_s_directions_are_numpy_s_singular_vectors(models: Path, tmp_path: Path):
    """Of X W' in float64, collected with no batch and no padding; signs and bases are free, so
    projectors are compared. float32 moments square the condition number: 1e-3."""
    import plain

    stage = salora_stage(models, safety_rank=4, calibration_rows=7)
    loaded = load([stage], CPU)
    open_slot(0, stage, loaded, Store(tmp_path))
    rows = loaded.encode(task_in(models, "safety"))[:7]
    expected = plain.right_vectors(find(stage.model.source), rows, 4)
    found = loaded.adapters.modules_of(0)
    assert found.keys() == expected.keys()
    for name, module in found.items():
        u = module.fixed[0].numpy()
        np.testing.assert_allclose(u @ u.T, expected[name] @ expected[name].T, atol=1e-3)


@pytest.mark.parametrize("init", ["task", "default"])
def test_an_exported_salora_adapter_cannot_move_the_safety_directions(
    models: Path, tmp_path: Path, init: str
):
    """U' dW = 0 to rounding for all that the adapter in the file does, its start taken off
    included, after B has been moved anywhere: 1e-6 of the update's size."""
    store = Store(tmp_path)
    stage = salora_stage(models, safety_rank=4, init=init)
    loaded = load([stage], CPU)
    slot = open_slot(0, stage, loaded, store)
    with torch.no_grad():
        for number, parameter in enumerate(slot.parameters.values()):
            parameter += draws(*parameter.shape, seed=number)
    commit(slot, loaded.adapters, store, Workers())
    record = store.get(STAGES, stage.key)
    assert record is not None
    factors = load_file(record.path("adapter_model.safetensors"))
    config = json.loads(record.path("adapter_config.json").read_text())
    assert config["r"] == stage.exported_rank == (8 if init == "task" else 4)
    assert config["lora_alpha"] / config["r"] == stage.lora.alpha / stage.lora.rank
    for name, module in loaded.adapters.modules_of(0).items():
        a, b = (factors[f"base_model.model.{name}.lora_{x}.weight"].double() for x in "AB")
        update = b @ a
        assert update.norm() > 1
        assert (module.fixed[0].double().T @ update).norm() < 1e-6 * b.norm() * a.norm()


def test_salora_starts_as_the_base(models: Path, tmp_path: Path):
    """C B0 A0 - C B0 A0 = 0, though B0 A0 is not."""
    stage = salora_stage(models, safety_rank=4)
    loaded = load([stage], CPU)
    slot = open_slot(0, stage, loaded, Store(tmp_path))
    assert all(parameter.abs().max() > 0.01 for parameter in slot.parameters.values())
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        own = loaded.adapters.model(ids).logits
        with loaded.adapters.disabled():
            base = loaded.adapters.model(ids).logits
    torch.testing.assert_close(own, base, rtol=0, atol=1e-6)


def test_salora_calibrates_in_one_pass_once_for_the_whole_grid(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """24 task rows and 12 refusals: 36 rows through the model, whatever the number of layers; a
    second stage of another rank and seed runs it not at all, and gets the same directions."""
    counted: list[int] = []
    original = raycib.hooks.salora.hidden_states

    def counting(model: Any, ids: Tensor) -> Any:
        counted.append(len(ids))
        return original(model, ids)

    monkeypatch.setattr(raycib.hooks.salora, "hidden_states", counting)
    store, fixed = Store(tmp_path), []
    for rank, seed in ((4, 0), (2, 1)):
        stage = salora_stage(models, safety_rank=rank).model_copy(update={"seed": seed})
        loaded = load([stage], CPU)
        open_slot(0, stage, loaded, store)
        fixed.append({n: m.fixed[0] for n, m in loaded.adapters.modules_of(0).items()})
        assert sum(counted) == 36
    for name, directions in fixed[0].items():
        assert torch.equal(fixed[1][name], directions[:, :2])
