"""Case II of the Trade-offs paper: projections onto a ball, from their definition and in numbers
derived by hand."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from menu import METHODS
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from raycib.config import PlainLoRA, RunSpec, StageSpec
from raycib.config.plan import AdapterGroup, Job
from raycib.hooks.ball import Ball
from raycib.methods.case2_ball import Case2Ball
from raycib.models.adapters import update_norm_sq
from raycib.objectives.parameter_distance import ParameterDistance
from raycib.store import Store
from raycib.training.group import STAGES
from raycib.training.loop import take_step
from raycib.training.workers import Workers

B = torch.tensor([[1.0, 2], [0, 1], [3, 0]])
A = torch.tensor([[1.0, 0, 2, 1], [0, 1, 1, -1]])
"""||B A||² = 79: test_method_oracles.py has the arithmetic."""
Parameters = dict[str, nn.Parameter]


# Case II: the ball


def one_module(a: Tensor = A, b: Tensor = B) -> Parameters:
    return {"m.lora_A": nn.Parameter(a.clone()), "m.lora_B": nn.Parameter(b.clone())}


def many_modules(seed: int = 0) -> Parameters:
    """Three modules of unequal shapes and sizes, rank 3."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for number, (out, into) in enumerate([(7, 5), (4, 9), (6, 6)]):
        found[f"layers.{number}.lora_A"] = torch.randn(3, into, generator=draw)
        found[f"layers.{number}.lora_B"] = (1 + number) * torch.randn(out, 3, generator=draw)
    return {name: nn.Parameter(value) for name, value in found.items()}


def dense(parameters: Parameters, scale: float) -> dict[str, np.ndarray]:
    """scale * B A of every module, in float64."""
    arrays = {name: p.detach().double().numpy() for name, p in parameters.items()}
    modules = dict.fromkeys(name.rpartition(".")[0] for name in arrays)
    return {m: scale * arrays[f"{m}.lora_B"] @ arrays[f"{m}.lora_A"] for m in modules}


def flat(updates: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([update.ravel() for update in updates.values()])


def bytes_of(parameters: Parameters) -> dict[str, bytes]:
    return {name: p.detach().numpy().tobytes() for name, p in parameters.items()}


@pytest.mark.parametrize(("scale", "norm_sq"), [(1, 79), (2, 316)])
def test_a_radius_of_half_the_norm_halves_b(scale: int, norm_sq: int):
    """||s B A||² = 79 for s = 1 and 4 * 79 for s = 2; epsilon = half the norm: factor 1/2, exactly;
    epsilon = sqrt(79)/2 is a quarter of the norm for s = 2."""
    for epsilon, factor in ((math.sqrt(norm_sq) / 2, 0.5), (math.sqrt(79) / 2, 0.5 / scale)):
        parameters = one_module()
        said = Ball(scale, epsilon, "global")(parameters, last=False)
        assert said == {"kept": pytest.approx(factor)}
        torch.testing.assert_close(parameters["m.lora_B"].detach(), factor * B)
        assert torch.equal(parameters["m.lora_A"], A), "A is left alone"


@pytest.mark.parametrize("share", [0.03, 0.5, 0.999])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_dense_update_is_projected_onto_the_ball(share: float, seed: int):
    """All modules' updates as one vector v: P(v) = v epsilon / ||v||, on the sphere. It is the
    Euclidean projection: for every q in the ball, <v - P, q - P> <= 0."""
    parameters = many_modules(seed)
    v = flat(dense(parameters, 2.0))
    epsilon = share * float(np.linalg.norm(v))
    Ball(2.0, epsilon, "global")(parameters, last=False)
    p = flat(dense(parameters, 2.0))
    np.testing.assert_allclose(p, v * share, rtol=1e-5, atol=1e-6 * epsilon)
    assert np.linalg.norm(p) == pytest.approx(epsilon, rel=1e-6)
    draw = np.random.default_rng(seed)
    for _ in range(200):
        q = draw.normal(size=v.shape)
        q *= epsilon * draw.uniform() ** 0.1 / np.linalg.norm(q)
        assert (v - p) @ (q - p) <= 0
        assert np.linalg.norm(v - p) < np.linalg.norm(v - q)


@pytest.mark.parametrize("scope", ["global", "module"])
def test_a_projection_is_idempotent_and_never_lengthens(scope: Any):
    """Once on the sphere, only float32 rounding (6e-8) can be taken off again."""
    for epsilon in (0.0, 0.1, 3.0, 20.0, 1e3):
        parameters = many_modules()
        norms = [np.linalg.norm(u) for u in dense(parameters, 2.0).values()]
        ball = Ball(2.0, epsilon, scope)
        ball(parameters, last=False)
        once = dense(parameters, 2.0)
        assert all(np.linalg.norm(u) <= n for u, n in zip(once.values(), norms, strict=True))
        ball(parameters, last=False)
        # Of the radius: an entry of B A is a sum of terms that may cancel.
        twice = flat(dense(parameters, 2.0))
        np.testing.assert_allclose(twice, flat(once), rtol=0, atol=1e-7 * (1 + epsilon))


@pytest.mark.parametrize("scope", ["global", "module"])
@pytest.mark.parametrize("epsilon", [math.sqrt(79), 9.0, 1e30, math.inf])
def test_inside_the_ball_not_a_bit_changes(scope: Any, epsilon: float):
    """The sphere itself is inside."""
    parameters = one_module()
    before = bytes_of(parameters)
    assert Ball(1, epsilon, scope)(parameters, last=True) == {"kept": 1.0}
    assert bytes_of(parameters) == before


def test_a_start_at_zero_is_inside_every_ball():
    """sqrt(0) and 0 / 0 would be nan."""
    parameters = one_module(b=torch.zeros_like(B))
    assert Ball(2, 0.0, "global")(parameters, last=False) == {"kept": 1.0}
    assert not parameters["m.lora_B"].any()


def test_a_radius_of_zero_leaves_nothing():
    parameters = many_modules()
    assert Ball(2, 0.0, "global")(parameters, last=False) == {"kept": 0.0}
    assert not flat(dense(parameters, 2.0)).any()


def test_the_projection_knows_the_update_and_not_its_factors():
    """(B R)(R^-1 A) = B A, so its projection is the same matrix."""
    r = torch.tensor([[2.0, 1], [0, 0.5]])
    one, other = one_module(), one_module(r.inverse() @ A, B @ r)
    for parameters in (one, other):
        Ball(1, 3.0, "global")(parameters, last=False)
    np.testing.assert_allclose(dense(other, 1)["m"], dense(one, 1)["m"], rtol=1e-5, atol=1e-6)


def test_a_ball_for_each_module_touches_only_what_is_outside_its_own():
    """Of norm 1 and 5 with radius 2: the first stays to the bit, the second is scaled by 2/5. One
    ball for both would take sqrt(26) to 2. `kept` is the mean, (1 + .4) / 2."""
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0], [0.0]])
    parameters = {
        "near.lora_A": nn.Parameter(a.clone()), "near.lora_B": nn.Parameter(b.clone()),
        "far.lora_A": nn.Parameter(5 * a), "far.lora_B": nn.Parameter(b.clone()),
    }  # fmt: skip
    said = Ball(1, 2.0, "module")(parameters, last=False)
    assert said["kept"] == pytest.approx(0.7)
    assert torch.equal(parameters["near.lora_B"], b)
    torch.testing.assert_close(parameters["far.lora_B"].detach(), 0.4 * b)
    assert Ball(1, 2.0, "global")(parameters, last=False)["kept"] == pytest.approx(2 / 5**0.5)


def test_the_penalty_s_gradient_is_that_of_the_dense_update():
    """d/dB lam ||s B A||² = lam 2 s² B (A A'), d/dA = lam 2 s² (B'B) A: against the dense matrix
    differentiated as it stands."""
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(*n, generator=draw).requires_grad_() for n in ((3, 8), (5, 3)))
    step: Any = SimpleNamespace(update_norm_sq=update_norm_sq(a, b, 2.0), share=1.0)
    term = ParameterDistance(0.3)(step)["distance"]
    found = torch.autograd.grad(term.weight * term.value, (a, b))
    by_matrix = torch.autograd.grad(0.3 * (2 * b @ a).square().sum(), (a, b))
    by_hand = 0.3 * 8 * (b.mT @ b) @ a, 0.3 * 8 * b @ (a @ a.mT)
    for one, other, hand in zip(found, by_matrix, by_hand, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(one, hand.detach(), rtol=1e-5, atol=1e-5)


# Case II on the tiny model


def norms(parameters: Any, scale: float) -> list[float]:
    return [float(np.linalg.norm(update)) for update in dense(parameters, scale).values()]


@pytest.mark.parametrize("name", ["case2 ball", "case2 ball, for each module"])
def test_the_menu_s_balls_bind_on_the_tiny_model_and_are_never_left(
    name: str, tiny_folder: Path, tmp_path: Path
):
    """From the second of six steps on; the update is on the sphere after each of them. 1e-6: the
    float32 rounding of a factor."""
    method: Any = METHODS[name]
    (stage,) = tiny.make_chain(tiny_folder, method)
    adapters, (slot,) = tiny.open_slots([stage], Store(tmp_path))
    assert stage.scale == 2
    for _ in range(6):
        take_step(adapters, [slot], Workers(), 16)
        lengths = norms(slot.parameters, stage.scale)
        if method.scope == "global":
            lengths = [math.hypot(*lengths)]
        assert max(lengths) <= method.epsilon * (1 + 1e-6)
    assert [entry["kept"] < 1 for entry in slot.history] == [False, *[True] * 5]
    assert max(lengths) == pytest.approx(method.epsilon, rel=1e-6)


def logits(model: Any) -> bytes:
    ids = torch.arange(24).reshape(2, 12) + 3
    with torch.no_grad():
        return model(input_ids=ids).logits.numpy().tobytes()


@pytest.mark.parametrize("scope", ["global", "module"])
def test_a_radius_of_zero_is_the_aligned_model_to_the_bit(
    scope: Any, tiny_folder: Path, tmp_path: Path
):
    """After six steps through `train_group`, the exported adapter under PEFT: the base's logits.
    Without the ball the same steps change them."""
    base = logits(AutoModelForCausalLM.from_pretrained(tiny_folder / "model"))
    for method, same in ((Case2Ball(epsilon=0, scope=scope), True), (PlainLoRA(), False)):
        own = Store(tmp_path / method.kind)
        (stage,) = tiny.make_chain(tiny_folder, method)
        tiny.train_chain((stage,), own)
        record = own.get(STAGES, stage.key)
        assert record
        history = json.loads(record.path("history.json").read_text())
        assert all(entry["grad_norm"] > 0 for entry in history)
        model = AutoModelForCausalLM.from_pretrained(tiny_folder / "model")
        adapted = PeftModel.from_pretrained(model, str(record.folder)).eval()
        assert (logits(adapted) == base) == same


def test_an_infinite_radius_is_the_stage_of_plain_lora(tiny_folder: Path, tmp_path: Path):
    """The same key, so nothing is trained again; test_invariances.py compares the bytes of what is
    trained. A radius that is merely huge is another stage with the same adapter."""
    stages = [
        tiny.make_stage(tiny_folder, method=method)
        for method in (PlainLoRA(), Case2Ball(), Case2Ball(epsilon=1e30, scope="module"))
    ]
    plain, infinite, huge = stages
    assert infinite.key == plain.key != huge.key
    for stage in stages:
        tiny.train_chain((stage,), Store(tmp_path / stage.method.kind / stage.short))
    found = [
        tiny.adapter_of(Store(tmp_path / stage.method.kind / stage.short), stage)
        for stage in stages
    ]
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, value in found[0].items():
            assert other[name].numpy().tobytes() == value.numpy().tobytes()


def test_a_ball_around_a_parent_s_adapter_holds_the_whole_update(tiny_folder: Path, tmp_path: Path):
    """The parent goes as far as 1; going on from it within .25 of the aligned model, not of it."""
    own = Store(tmp_path)
    parent = tiny.make_stage(tiny_folder)
    stage = tiny.make_stage(tiny_folder, method=METHODS["case2 ball"], parent=parent, seed=1)
    tiny.train_chain((parent, stage), own)

    def length(one: StageSpec) -> float:
        record = own.get(STAGES, one.key)
        assert record
        tensors = load_file(record.path("adapter_model.safetensors"))
        short = {n.removesuffix(".weight"): nn.Parameter(t) for n, t in tensors.items()}
        return math.hypot(*norms(short, 2.0))

    assert length(parent) > 0.9
    assert length(stage) == pytest.approx(0.25, rel=1e-6)


@pytest.mark.parametrize("method", [Case2Ball(), Case2Ball(epsilon=0.5), Case2Ball(epsilon=0)])
def test_any_radius_survives_the_way_through_json(method: Case2Ball, tiny_folder: Path):
    """Groups and runs cross processes as text, and JSON proper has no infinity."""
    stage = tiny.make_stage(tiny_folder, method=method)
    child = stage.model_copy(update={"parent": stage, "seed": 1})
    evals = tiny.make_evals(tiny_folder)
    jobs = tuple(Job(stage=one, evals=(evals,)) for one in (stage, child))
    group = AdapterGroup(name="group", jobs=jobs)
    run = RunSpec(stages=(stage,), evals=evals, compared=method)
    for one in (group, run, child):
        text = one.model_dump_json()
        assert type(one).model_validate_json(text) == one  # type: ignore[arg-type]
        plain = json.loads(json.dumps(one.model_dump(mode="json"), allow_nan=False))
        assert type(one).model_validate(plain) == one
    again = AdapterGroup.model_validate_json(group.model_dump_json())
    assert [job.stage.key for job in again.jobs] == [stage.key, child.key]
    assert [job.stage.method for job in again.jobs] == [method, method]
