"""Every method against numbers derived by hand, and against NumPy where a hand is too slow."""

import itertools
import json
import math
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

import raycib.hooks.safe_lora
import raycib.hooks.salora
from raycib.config import StageSpec, TaskSpec
from raycib.data.chat import Encoded
from raycib.data.rows import describe_task
from raycib.errors import UserError
from raycib.hooks import AdapterContext
from raycib.hooks.ema import WeightAverage
from raycib.hooks.safe_lora import chosen, project
from raycib.hooks.safegrad import remove_conflict
from raycib.hooks.salora import start_off_safety
from raycib.hooks.vaccine import worst_perturbation
from raycib.methods.cib import CIB
from raycib.methods.random_subset import RandomSubset
from raycib.methods.safe_lora import SafeLoRA
from raycib.methods.safety_mix import SafetyMix
from raycib.methods.salora import SaLoRA
from raycib.model_files import describe, find
from raycib.models.adapters import AdapterSlots, LoRAShape, update_norm_sq
from raycib.models.step import GroupStep, Step
from raycib.models.tensors import Totals, collate
from raycib.objectives.cib import ContrastiveBottleneck
from raycib.objectives.constrained_token import ConstrainedTokens, token_weights
from raycib.objectives.kl import divergence
from raycib.objectives.orthogonality import Orthogonality, overlap
from raycib.objectives.parameter_distance import ParameterDistance
from raycib.objectives.safety_anchor import SafetyAnchor
from raycib.store import Store
from raycib.training.group import STAGES, commit, load, open_slot
from raycib.training.workers import Workers

CPU = torch.device("cpu")


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def value_of(terms: dict[str, Any], name: str) -> float:
    return float(terms[name].value.detach())


# KL


def test_kl_by_hand():
    """Reference (.5, .5), own (.9, .1). KL(ref, own) = .5 ln(.5/.9) + .5 ln(.5/.1) = .510826;
    KL(own, ref) = .9 ln(.9/.5) + .1 ln(.1/.5) = .368064."""
    reference, own = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    assert float(divergence(own, reference, "forward")) == pytest.approx(0.510826, abs=1e-6)
    assert float(divergence(own, reference, "reverse")) == pytest.approx(0.368064, abs=1e-6)


def test_a_constant_for_each_vocabulary_entry_changes_the_kl_and_not_the_official_one():
    """Vaccine's KLTrainer takes the softmax over time: adding c_v to the logits of entry v at all
    times leaves it as it is, though every next-token distribution is another one."""
    own, reference = draws(7, 5), draws(7, 5, seed=1)
    moved = own + 3 * draws(5, seed=2)

    def official(logits: Tensor) -> Tensor:
        p, q = reference.log_softmax(dim=0), logits.log_softmax(dim=0)
        return (p.exp() * (p - q)).sum()

    torch.testing.assert_close(official(moved), official(own))
    for direction in ("forward", "reverse"):
        before, after = (divergence(x, reference, direction) for x in (own, moved))
        assert ((after - before).abs() > 0.01).all()


def test_a_constant_for_each_token_changes_no_kl():
    """A softmax over the vocabulary does not see it."""
    own, reference = draws(7, 5), draws(7, 5, seed=1)
    moved = divergence(own + draws(7, 1, seed=2), reference + 4, "forward")
    torch.testing.assert_close(moved, divergence(own, reference, "forward"))


# Vaccine


class LinearLoss:
    """A step whose loss is sum_l <g_l, output of block l>: its gradient in that output is g_l."""

    def __init__(self, slopes: list[Tensor], curvature: float = 0.0) -> None:
        rows, seq, self.dim = slopes[0].shape
        self.slopes, self.curvature = slopes, curvature
        self.batch = SimpleNamespace(ids=torch.zeros(rows, seq, dtype=torch.long))
        self.totals = SimpleNamespace(tokens=1)
        block = type("ToyAttention", (nn.Module,), {})
        layers = [nn.ModuleList([block()]) for _ in slopes]
        decoder = nn.Module()
        decoder.layers = nn.ModuleList(layers)
        config = SimpleNamespace(num_hidden_layers=len(layers))
        self.model = SimpleNamespace(get_decoder=lambda: decoder, config=config)
        self.found: list[Tensor] = []

    def loss(self, outputs: list[Tensor]) -> Tensor:
        parts = [
            (g * x).sum() + self.curvature * (x * x).sum()
            for g, x in zip(self.slopes, outputs, strict=True)
        ]
        return torch.stack(parts).sum()

    def alone(self, outputs: list[Tensor]) -> Any:
        return SimpleNamespace(nll=self.loss(outputs))

    def perturb(self, found: list[Tensor]) -> None:
        self.found = found


def perturbation(
    step: LinearLoss, rho: float, steps: int = 1, norm: str = "sequence"
) -> list[Tensor]:
    one = {"p": nn.Parameter(torch.zeros(1))}
    worst_perturbation(rho, steps, norm)([step], one, lambda _: None)  # type: ignore[arg-type]
    return step.found


def test_vaccine_by_hand():
    """g = (3, 0), (0, 4): norm 5 over both layers; rho = 2 gives 2/5 g = (1.2, 0), (0, 1.6)."""
    slopes = [torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[0.0, 4.0]]])]
    for norm in ("sequence", "batch"):
        first, second = perturbation(LinearLoss(slopes), 2.0, norm=norm)
        torch.testing.assert_close(first, torch.tensor([[[1.2, 0.0]]]))
        torch.testing.assert_close(second, torch.tensor([[[0.0, 1.6]]]))


@pytest.mark.parametrize("steps", [1, 3])
def test_squared_norms_add_up_to_rho_squared_for_each_row_or_for_the_batch(steps: int):
    """The slope stays the same all the way, so three steps of rho / 3 go straight to the border.
    Rows of very different slopes share one ball only with norm=batch."""
    slopes = [draws(3, 4, 5, seed=layer) for layer in range(2)]
    slopes = [g * torch.tensor([1.0, 10.0, 0.1])[:, None, None] for g in slopes]
    rows, batch = (
        torch.stack([x.square().sum(dim=(1, 2)) for x in found]).sum(dim=0)
        for found in (
            perturbation(LinearLoss(slopes), 0.7, steps, norm) for norm in ("sequence", "batch")
        )
    )
    torch.testing.assert_close(rows, torch.full((3,), 0.49))
    assert float(batch.sum()) == pytest.approx(0.49, rel=1e-5)
    shares = torch.stack([g.square().sum(dim=(1, 2)) for g in slopes]).sum(dim=0)
    torch.testing.assert_close(batch, 0.49 * shares / shares.sum())


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rho", [0.01, 0.5, 20.0])
def test_the_second_loss_of_a_convex_toy_is_no_smaller(rho: float, steps: int):
    """L(e) >= L(0) + <g, e> = L(0) + rho |g| where L is convex and e = rho g / |g|."""
    toy = LinearLoss([draws(2, 3, 4, seed=s) for s in (1, 2)], curvature=0.3)
    zero = toy.loss([torch.zeros_like(g) for g in toy.slopes])
    found = perturbation(toy, rho, steps)
    assert float(toy.loss(found)) >= float(zero) + 0.99 * rho


@pytest.fixture(scope="module")
def tiny_slot(tmp_path_factory: pytest.TempPathFactory) -> AdapterSlots:
    """The tiny model with one slot that does something."""
    from transformers import AutoModelForCausalLM

    folder = tiny.make_model(tmp_path_factory.mktemp("oracles") / "model")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    adapters = AdapterSlots(model, [LoRAShape(4, 8.0, ("q_proj", "down_proj"))])
    with torch.no_grad():
        for number, parameter in enumerate(adapters.parameters_of(0).values()):
            parameter.copy_(0.3 * draws(*parameter.shape, seed=number))
    return adapters


ROWS = [Encoded((2, 3, 4), (5, 6, 7)), Encoded((9,), (8, 7, 6, 5, 4)), Encoded((1, 2), (3, 9))]


def step_on(adapters: AdapterSlots, *examples: int, auxiliary: tuple[int, ...] = ()) -> Step:
    def totals(chosen: tuple[int, ...]) -> dict[int, Totals]:
        return {0: Totals(len(chosen), sum(len(ROWS[i].response) for i in chosen))}

    safety = None
    if auxiliary:
        safety = GroupStep(adapters, {0: collate(ROWS, auxiliary)}, totals(auxiliary), {})
    group = GroupStep(adapters, {0: collate(ROWS, examples)}, totals(examples), {}, safety)
    return group.steps()[0]


def test_a_small_perturbation_of_the_tiny_model_costs_rho_times_the_slope(tiny_slot):
    """To first order the loss of one row rises by rho |g|; with as many perturbed blocks as the
    model has layers. rho |g| is .0075 nats here, ten thousand times rounding."""
    rho, losses = 0.002, []
    for radius in (0.0, rho):
        step = step_on(tiny_slot, 1)
        parameters = tiny_slot.parameters_of(0)
        worst_perturbation(radius or 1e-9, 1, "sequence")([step], parameters, lambda _: None)
        losses.append(float(step.nll.sum().detach() / 5))
        added = step._group.perturbations[0]
        assert len(added) == tiny_slot.model.config.num_hidden_layers == 2
    leaves = [torch.zeros_like(x).requires_grad_() for x in added]
    slopes = torch.autograd.grad(step_on(tiny_slot, 1).alone(leaves).nll.sum() / 5, leaves)
    size = math.sqrt(sum(float(g.square().sum()) for g in slopes))
    assert all(g.abs().max() > 0 for g in slopes)
    assert losses[1] - losses[0] == pytest.approx(rho * size, rel=0.1)
    assert losses[1] > losses[0]


# Safe LoRA: one module


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


def test_a_module_that_alignment_or_training_did_not_touch_stays():
    a, b = draws(2, 4), draws(4, 2, seed=1)
    assert project(torch.zeros(4, 4), a, b).cosine == 1
    assert torch.equal(project(torch.zeros(4, 4), a, b).b, b)
    assert torch.equal(project(draws(4, 4), a, 0 * b).b, 0 * b)


# Safe LoRA: whole models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An aligned model and a base, and a task."""
    folder = tmp_path_factory.mktemp("safe lora")
    for seed, name in enumerate(("aligned", "base")):
        tiny.make_model(folder / name, seed=seed)
    tiny.make_rows(folder / "task.jsonl", 24)
    tiny.make_rows(folder / "safety.jsonl", 12, seed=5)
    return folder


def task_in(folder: Path, name: str = "task") -> TaskSpec:
    return describe_task(name, str(folder / f"{name}.jsonl"), 64)


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


# SaLoRA


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


SAFETY = TaskSpec(name="s", source="nowhere", rows="r" * 64, num_rows=3)


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


# O-LoRA


def test_o_lora_by_hand():
    """Earlier rows e1, e2; new rows e3, e1/2 - e2/4: products 0, 0, 1/2, -1/4. Sum of sizes .75,
    of squares .3125."""
    e = torch.eye(4)
    new, earlier = torch.stack([e[2], 0.5 * e[0] - 0.25 * e[1]]), e[:2]
    assert float(overlap(new, earlier)) == 0.75
    assert float(overlap(new, earlier, "squared")) == 0.3125


def test_orthogonal_rows_do_not_overlap():
    q = torch.linalg.qr(draws(8, 8)).Q
    for norm in ("l1", "squared"):
        assert float(overlap(q[:3], q[3:], norm)) == pytest.approx(0, abs=1e-5)


def test_o_lora_with_nothing_below_is_an_error_not_a_zero(tiny_slot):
    objective = Orthogonality(0.5, "l1", "lora_A", mean=False)
    with pytest.raises(ValueError, match="no earlier adapter lies below"):
        objective(step_on(tiny_slot, 0))


# SafeGrad


def test_safegrad_by_hand():
    """g = (1, -1), s = (0, 1): g . s = -1, so g + s = (1, 0) is left. The vector may be spread over
    parameters: it is one product for all."""
    (found,) = remove_conflict([torch.tensor([1.0, -1.0])], [torch.tensor([0.0, 1.0])])
    assert found.tolist() == [1, 0]
    parts = remove_conflict(
        [torch.tensor([1.0]), torch.tensor([-1.0])], [torch.tensor([0.0]), torch.tensor([1.0])]
    )
    assert [float(part) for part in parts] == [1, 0]


def test_a_gradient_without_conflict_is_left_alone():
    for g, s in (([1.0, 1.0], [0.0, 1.0]), ([1.0, 0.0], [0.0, 1.0]), ([1.0, -2.0], [0.0, 0.0])):
        (found,) = remove_conflict([torch.tensor(g)], [torch.tensor(s)])
        assert found.tolist() == g


def test_what_is_left_of_a_gradient_has_no_conflict():
    g, s = [draws(4, 3), draws(5)], [draws(4, 3, seed=1), draws(5, seed=2)]
    if sum(float((a * b).sum()) for a, b in zip(g, s, strict=True)) > 0:
        s = [-one for one in s]
    left = remove_conflict(g, s)
    assert sum(float((a * b).sum()) for a, b in zip(left, s, strict=True)) == pytest.approx(
        0, abs=1e-5
    )


# Constrained tokens


def test_constrained_weights_by_hand():
    """w = 2 (1 - sigmoid(beta d)) with d = log p - log p_ref. At d = 0 it is 1; a token three times
    as likely with beta 1: sigmoid(ln 3) = 3/4, w = 1/2; a third as likely: w = 3/2; d = 100: the
    floor .001."""
    d = torch.tensor([[0.0, math.log(3), -math.log(3), 100.0]])
    weights = token_weights(torch.zeros(1, 4), d, torch.ones(1, 4))
    torch.testing.assert_close(weights, torch.tensor([[1.0, 0.5, 1.5, 0.001]]))


class Scored(Step):
    """A step of two rows of which only the losses matter: prompts of 2 and 1 tokens, responses of
    7 and 3."""

    batch = collate([Encoded((1, 1), (2,) * 7), Encoded((1,), (2,) * 3)], [0, 1])
    totals = Totals(rows=2, tokens=10)
    nll = torch.empty(0)

    def __init__(self, nll: Tensor, gained: float) -> None:
        self.nll = nll
        self.gained = gained

    def reference_tokens(self, tokens: Any = "", layer: Any = "") -> Tensor:
        return self.nll.detach()[self.batch.labels >= 0] + self.gained


def weights_of(beta: float, gained: float) -> Tensor:
    """The gradient of the loss in each token's -log p, times the 10 tokens: its weight."""
    nll = (Scored.batch.labels >= 0).float().requires_grad_()
    objective = ConstrainedTokens(beta, 5.0, 20.0)
    term = objective(Scored(nll, gained))["constrained"]
    (found,) = torch.autograd.grad(term.value, nll)
    return 10 * found * (Scored.batch.labels >= 0)


def test_constrained_tokens_weigh_1_where_the_model_has_not_moved():
    torch.testing.assert_close(weights_of(0.1, 0.0), (Scored.batch.labels >= 0).float())


def test_constrained_tokens_are_strictest_with_the_first_five():
    """d = 1, beta = .1: sigma(-.5) for the first response token, sigma(-2) for tokens 2 to 5,
    sigma(-.1) after them, times 2. They count from the response's start in every row."""
    first, early, late = (2 / (1 + math.exp(x)) for x in (0.5, 2.0, 0.1))
    by_hand = torch.tensor(
        [[0, 0, first, *[early] * 4, late, late], [0, first, early, early, 0, 0, 0, 0, 0]]
    )
    torch.testing.assert_close(weights_of(0.1, 1.0), by_hand)


# EMA


def test_ema_in_closed_form():
    """Weights 1, 2, 4, 8 with decay 1/2: 1 -> 3/2 -> 11/4 -> 43/8; the last step leaves it in the
    weights' place, earlier ones leave the weights alone."""
    parameters = {"a.b": nn.Parameter(torch.tensor([1.0]))}
    average = WeightAverage(parameters, 0.5)
    for weight, expected, last in ((2.0, 1.5, False), (4.0, 2.75, False), (8.0, 5.375, True)):
        with torch.no_grad():
            parameters["a.b"].fill_(weight)
        average(parameters, last)
        assert float(average.get_buffer("a/b")) == expected
        assert float(parameters["a.b"].detach()) == (expected if last else weight)


# SBR


def test_sbr_by_hand():
    """z - zref = (1, -1), (3, 1): means of squares 1 and 5, of both rows 3; of an effective batch
    of four rows these two are half."""
    z, zref = torch.tensor([[1.0, 0.0], [3.0, 3.0]]), torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    for rows, expected in ((2, 3.0), (4, 1.5)):
        safety = SimpleNamespace(
            pooled=lambda *_: z, reference=lambda *_: zref, totals=SimpleNamespace(rows=rows)
        )
        safety.alone = lambda safety=safety: safety
        term = SafetyAnchor(50.0)(SimpleNamespace(safety=safety))["anchor"]  # type: ignore[arg-type]
        assert float(term.value) == expected
        assert term.weight == 50


def test_sbr_does_not_read_the_answers(tiny_slot):
    """Other refusals after the same prompts: the same term, to rounding."""
    same_prompt = [Encoded((2, 3, 4), (9, 9, 1, 5)), Encoded((9,), (1,))]
    values = []
    for data in (ROWS[:2], same_prompt):
        batch, totals = {0: collate(data, [0, 1])}, {0: Totals(2, 1)}
        safety = GroupStep(tiny_slot, batch, totals, {}).steps()[0]
        values.append(value_of(SafetyAnchor(1.0)(SimpleNamespace(safety=safety)), "anchor"))  # type: ignore[arg-type]
    assert values[0] > 1e-4
    assert values[0] == pytest.approx(values[1], rel=1e-4)


# Rows: random subset and safety mix

TASK = [Encoded((n,), (1,)) for n in range(50)]
REFUSALS = [Encoded((n,), (2,)) for n in range(20)]


@pytest.mark.parametrize(("fraction", "count"), [(0.8, 40), (0.01, 1), (0.5, 25), (0.001, 1)])
def test_a_random_subset_is_a_part_in_the_task_s_order(fraction: float, count: int):
    options = RandomSubset(fraction=fraction)
    found = options.build().rows(TASK, [], 3)
    assert len(found) == len(set(found)) == count == options.rows_trained(50)
    assert found == [row for row in TASK if row in found]


def test_a_random_subset_is_a_function_of_the_seed():
    choose = RandomSubset(fraction=0.5).build().rows
    torch.manual_seed(1)
    first = choose(TASK, [], 0)
    torch.manual_seed(2)
    assert choose(TASK, [], 0) == first
    assert len({tuple(choose(TASK, [], seed)) for seed in range(4)}) == 4


def test_every_row_is_as_likely_in_a_subset():
    """400 subsets of half the rows: each row in 200 of them, standard deviation 10."""
    choose = RandomSubset(fraction=0.5).build().rows
    found = list(itertools.chain.from_iterable(choose(TASK, [], seed) for seed in range(400)))
    counts = [found.count(row) for row in TASK]
    assert min(counts) > 150
    assert max(counts) < 250


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.1, 5), (0.4, 20), (1.0, 50)])
def test_safety_mix_adds_refusals_to_the_whole_task(share: float, count: int):
    """No refusal a second time before all of them came once."""
    options = SafetyMix(share=share, safety=SAFETY)
    found = options.build().rows(TASK, REFUSALS, 3)
    assert found[:50] == TASK
    added = found[50:]
    assert len(added) == count == options.rows_trained(50) - 50
    times = [added.count(row) for row in REFUSALS]
    assert sum(times) == count
    assert max(times) - min(times) <= 1


def test_safety_mix_is_a_function_of_the_seed():
    mix = SafetyMix(share=0.2, safety=SAFETY).build().rows
    assert mix(TASK, REFUSALS, 0) == mix(TASK, REFUSALS, 0)
    assert len({tuple(mix(TASK, REFUSALS, seed)) for seed in range(4)}) == 4


# Case II

B = torch.tensor([[1.0, 2], [0, 1], [3, 0]])
A = torch.tensor([[1.0, 0, 2, 1], [0, 1, 1, -1]])


def test_the_distance_by_hand():
    """B A = [[1,2,4,-1],[0,1,1,-1],[3,0,6,3]]: squares 22 + 3 + 54 = 79, and 4 * 79 with s = 2."""
    assert (B @ A).tolist() == [[1, 2, 4, -1], [0, 1, 1, -1], [3, 0, 6, 3]]
    assert float(update_norm_sq(A, B, 1)) == 79
    assert float(update_norm_sq(A, B, 2)) == 316


def test_the_distance_s_gradients_by_hand():
    """2 s² B (A A') and 2 s² (B'B) A, with A A' = [[6,1],[1,3]] and B'B = [[10,2],[2,5]], s = 2."""
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    of_a, of_b = torch.autograd.grad(update_norm_sq(a, b, 2), (a, b))
    torch.testing.assert_close(of_b, 8 * B @ torch.tensor([[6.0, 1], [1, 3]]))
    torch.testing.assert_close(of_a, 8 * torch.tensor([[10.0, 2], [2, 5]]) @ A)


def test_the_distance_knows_the_update_and_not_its_factors():
    """(B R)(R^-1 A) = B A."""
    r = torch.tensor([[2.0, 1], [0, 0.5]])
    assert float(update_norm_sq(r.inverse() @ A, B @ r, 1)) == pytest.approx(79, rel=1e-6)


def test_the_distance_s_gradient_at_the_start_is_zero_not_nan():
    a, b = A.clone().requires_grad_(), torch.zeros_like(B).requires_grad_()
    of_a, of_b = torch.autograd.grad(update_norm_sq(a, b, 2), (a, b))
    assert not of_a.any()
    assert not of_b.any()


def test_the_distance_counts_once_a_step(tiny_slot):
    """Micro-batches of one and two rows of three: shares 1/3 and 2/3."""
    whole = float(tiny_slot.update_norm_sq(0).detach())
    objective, found = ParameterDistance(0.1), []
    for examples in ([0], [1, 2]):
        totals = {0: Totals(3, 10)}
        step = GroupStep(tiny_slot, {0: collate(ROWS, examples)}, totals, {}).steps()[0]
        found.append(value_of(objective(step), "distance"))
    assert whole > 1
    assert found == pytest.approx([whole / 3, 2 * whole / 3])


# CIB without negatives


def test_the_anchor_alone_is_one_minus_the_cosine_from_the_first_step_on():
    """z = (1, 0), zref = (.6, .8): 1 - .6; z = (0, 2), zref = (0, 5): 0. Mean of two rows .2. Its
    gradient in the first z is -(zref^ - .6 z^)/|z| / 2 = (0, -.4)."""
    z = torch.tensor([[1.0, 0.0], [0.0, 2.0]], requires_grad=True)
    zref = torch.tensor([[0.6, 0.8], [0.0, 5.0]])

    class Still(Step):
        totals = Totals(rows=2, tokens=2)

        def __init__(self) -> None:
            pass

        def pooled(self, *_: Any) -> Tensor:
            return z

        def reference(self, *_: Any) -> Tensor:
            return zref

    objective = ContrastiveBottleneck(CIB(lam=3.0, num_negatives=0), dim=2)
    objective.begin_step(0, torch.Generator())
    term = objective(Still())["contrast"]
    assert float(term.value.detach()) == pytest.approx(0.2)
    assert term.weight == 3
    (gradient,) = torch.autograd.grad(term.value, z)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, -0.4], [0.0, 0.0]]))
