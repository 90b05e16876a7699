"""Two optimiser steps of every method against `plain.py`, which knows the papers and not raycib.

Each step starts from weights whose B is not zero, runs in micro-batches of 4 of its 10 rows, and
is compared term by term, in the gradient before clipping, and in the weights after AdamW.
"""

import numpy as np
import plain
import pytest
import tiny
import torch
from method_cases import (
    CASES,
    CPU,
    LORA,
    MICRO,
    TRAINER,
    World,
    batch_of,
    copies,
    distance,
    louder,
    opened,
    other_side,
    randomise,
    stage_of,
    stored_parent,
    watch,
)
from safetensors.numpy import load_file

from raycib.config import LoRASpec, Method, PlainLoRA
from raycib.data.rows import describe_task
from raycib.methods.ema import EMA
from raycib.methods.random_subset import RandomSubset
from raycib.methods.safe_lora import SafeLoRA
from raycib.methods.safety_mix import SafetyMix
from raycib.model_files import find
from raycib.store import Store
from raycib.training.group import STAGES, commit, load, open_slot
from raycib.training.loop import take_step
from raycib.training.workers import Workers

GRADIENT = 1e-4
"""Of the gradient's norm. float32 carries 6e-8, and sums over 10 rows of up to 30 tokens, through
2 layers and back, lose a factor of some tens."""
WEIGHTS = 2e-2
"""Of the size of the update. Adam's first steps are signs of gradients, so an entry whose gradient
is within rounding of zero may go the other way."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("steps")
    rows = [tiny.make_rows(folder / f"{n}.jsonl", n, seed=n) for n in (25, 12)]
    task, safety = (describe_task(path.stem, str(path), 64) for path in rows)
    models = [louder(tiny.make_model(folder / f"m{seed}", seed=seed)) for seed in (0, 1)]
    return World(*models, task, safety, Store(folder / "store"), {})


@pytest.mark.parametrize("name", CASES)
def test_two_steps_equal_those_of_the_plain_version(world: World, name: str):
    case = CASES[name]
    method, expected_of = case.spec(world), case.plain(world)
    slot, loaded = opened(world, method)
    other = other_side(world, method)
    gradients = watch(slot)
    adamw = plain.AdamW(TRAINER.learning_rate, TRAINER.max_grad_norm, TRAINER.weight_decay)
    differs = False
    for step in range(2):
        before, batch = copies(slot), batch_of(slot)
        other.copy(before)  # so that the second step starts alike, to the bit
        take_step(loaded.adapters, [slot], Workers(), MICRO)
        terms, expected = expected_of(other, batch)

        entry = slot.history[-1]
        values = {term: float(value.detach()) for term, (_, value) in terms.items()}
        after = adamw.step(before, expected, (step + 1) / TRAINER.warmup_steps)
        after, said = case.after(after, LORA.alpha / LORA.rank)
        assert entry.keys() == {"step", "grad_norm", *values, *said}
        for term, value in values.items():
            assert value > 1e-3, f"{term} is nearly zero, so this shows nothing"
            assert entry[term] == pytest.approx(value, rel=1e-4)
        assert distance(gradients[-1], expected) < GRADIENT
        assert entry["grad_norm"] == pytest.approx(float(plain.flat(expected).norm()), rel=1e-4)

        for number, value in said.items():
            assert entry[number] == pytest.approx(value, rel=1e-4)
            differs = differs or value < 0.95
        moved = {n: w - before[n] for n, w in copies(slot).items()}
        assert distance(moved, {n: w - before[n] for n, w in after.items()}) < WEIGHTS

        _, without = plain.lora(other, batch)
        differs = differs or distance(gradients[-1], without) > 100 * GRADIENT
        if step == 0 and case.first_step and not same_step(method):
            assert differs
    assert differs or same_step(method), "the method's own part changed nothing"


def same_step(method: Method) -> bool:
    """Whether the method's step on given rows is plain LoRA's."""
    return isinstance(method, PlainLoRA | RandomSubset | SafetyMix | EMA)


def test_overlap_of_the_up_projections_does_not_depend_on_the_scale_below(world: World):
    """O-LoRA compares factors, whatever number stands before their products: here 9/3 below and
    8/4 above, so that a B below that took over the new scale would be 1.5 times as large."""
    case = CASES["o_lora, as in the paper"]
    slot, loaded = opened(world, case.spec(world), LoRASpec(rank=3, alpha=9))
    other = other_side(world, case.spec(world), LoRASpec(rank=3, alpha=9))
    other.copy(copies(slot))
    batch = batch_of(slot)
    take_step(loaded.adapters, [slot], Workers(), MICRO)
    terms, _ = case.plain(world)(other, batch)
    assert slot.history[-1]["overlap"] == pytest.approx(float(terms["overlap"][1].detach()), 1e-4)


LIVE = ("kl", "kl, all tokens", "constrained_token", "sbr", "safegrad", "cib", "cib, hardest")


@pytest.mark.parametrize("name", LIVE)
def test_live_references_give_the_same_step_as_cached_ones(world: World, name: str):
    """What a bank holds of a row is what the model without its adapter has there now. The plain
    version is always live, so this is the other half of the test above."""
    method, found = CASES[name].spec(world), []
    for cached in (True, False):
        slot, loaded = opened(world, method)
        slot = open_slot(0, slot.stage, loaded, world.store, cached=cached)
        assert (slot.task.cache is not None) == (cached and bool(method.features))
        randomise(slot)
        gradients = watch(slot)
        for _ in range(2):
            take_step(loaded.adapters, [slot], Workers(), MICRO)
        found.append(gradients)
    for one, other in zip(*found, strict=True):
        assert distance(one, {n: g.double() for n, g in other.items()}) < GRADIENT


def test_all_methods_in_one_group_take_the_step_that_each_takes_alone(world: World):
    """One of every kind but the stacked one, side by side: gradients of the first step against the
    plain version's, so that no slot sees another's rows, terms, perturbation or surgery."""
    kinds = [name for name in CASES if "," not in name and not CASES[name].spec(world).stacked]
    chosen = [*kinds, "vaccine, official", "cib, anchor alone"]
    stages = [stage_of(world, CASES[name].spec(world)) for name in chosen]
    loaded = load(stages, CPU)
    slots = [open_slot(i, stage, loaded, world.store) for i, stage in enumerate(stages)]
    for slot in slots:
        randomise(slot, seed=slot.index)  # each slot somewhere else
    watched = [watch(slot) for slot in slots]
    batches, starts = [batch_of(slot) for slot in slots], [copies(slot) for slot in slots]
    take_step(loaded.adapters, slots, Workers(), MICRO)
    other = other_side(world, PlainLoRA())
    for name, gradients, batch, start in zip(chosen, watched, batches, starts, strict=True):
        other.copy(start)
        _, expected = CASES[name].plain(world)(other, batch)
        assert distance(gradients[0], expected) < GRADIENT, name


def test_surgery_begins_with_the_first_divergence_that_is_more_than_rounding(world: World):
    """3e-6 nats over three micro-batches, the last of which has less than 1e-6."""
    case = CASES["safegrad"]
    slot, loaded = opened(world, case.spec(world))
    randomise(slot)
    with torch.no_grad():
        for name, parameter in slot.parameters.items():
            parameter *= 0.0013 if name.endswith("lora_B") else 1
    other, gradients, batch = other_side(world, case.spec(world)), watch(slot), batch_of(slot)
    other.copy(copies(slot))
    take_step(loaded.adapters, [slot], Workers(), MICRO)
    assert distance(gradients[0], case.plain(world)(other, batch)[1]) < GRADIENT
    assert distance(gradients[0], plain.lora(other, batch)[1]) > 100 * GRADIENT


def test_what_random_subset_trains_on_is_part_of_the_task(world: World):
    slot, _ = opened(world, RandomSubset(fraction=0.6))
    task = world.encode(world.task)
    assert len(slot.task.data) == 15
    assert all(row in task for row in slot.task.data)


def test_what_safety_mix_trains_on_is_the_task_and_refusals(world: World):
    slot, _ = opened(world, SafetyMix(safety=world.safety, share=0.2))
    task, safety = world.encode(world.task), world.encode(world.safety)
    assert list(slot.task.data[:25]) == task
    assert len(slot.task.data) == 30
    assert all(row in safety for row in slot.task.data[25:])


def test_ema_s_adapter_is_the_average_of_the_weights_plain_lora_went_through(world: World):
    """Six steps, decay .9: average = .9^6 w_0 + sum_t .1 * .9^(6 - t) w_t. Training itself is plain
    LoRA's, so the w_t come from there."""
    plain_slot, loaded = opened(world, PlainLoRA())
    weights = [copies(plain_slot)]
    for _ in range(6):
        take_step(loaded.adapters, [plain_slot], Workers(), MICRO)
        weights.append(copies(plain_slot))
    stage = stage_of(world, EMA(decay=0.9))
    again = load([stage], CPU)
    open_slot(0, stage, again, world.store)  # its start weights are not the ones wanted here
    again.adapters.initialise = lambda *_: None  # type: ignore[method-assign]
    slot = open_slot(0, stage, again, world.store)
    assert slot.hook is not None
    with torch.no_grad():
        for name, parameter in slot.parameters.items():
            parameter.copy_(weights[0][name])
            slot.hook.get_buffer(name.replace(".", "/")).copy_(weights[0][name])
    while slot.active:
        take_step(again.adapters, [slot], Workers(), MICRO)
    assert slot.step == 6
    shares = [0.9**6, *(0.1 * 0.9 ** (6 - t) for t in range(1, 7))]
    assert sum(shares) == pytest.approx(1)
    average = {
        name: torch.stack([s * w[name] for s, w in zip(shares, weights, strict=True)]).sum(0)
        for name in weights[0]
    }
    assert distance(copies(slot), average) < 1e-5
    assert distance(copies(slot), weights[-1]) > 1e-2


# Safe LoRA: no step, an adapter derived from its parent's


def dense_safe_lora(
    world: World, below: dict[str, np.ndarray], exact: bool = False
) -> dict[str, tuple[float, np.ndarray]]:
    """For each module cos(vec(C B A), vec(B A)) and C B, with dense matrices in float64."""
    weights = [load_file(find(m.source) / "model.safetensors") for m in (world.aligned, world.base)]
    found = {}
    for name in {key.partition(".lora_")[0] for key in below}:
        module = name.removeprefix("base_model.model.")
        v = np.subtract(*(w[f"{module}.weight"].astype(float) for w in weights))
        a, b = (below[f"{name}.lora_{x}.weight"].astype(float) for x in "AB")
        c = v @ np.linalg.pinv(v) if exact else v @ v.T / np.linalg.norm(v)
        before, after = (b @ a).ravel(), (c @ b @ a).ravel()
        cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
        found[module] = (float(cosine), c @ b)
    return found


@pytest.mark.parametrize("choose", ["threshold", "number", "exact"])
def test_safe_lora_equals_dense_matrices(world: World, choose: str):
    """A threshold between the cosines, so that some modules are projected and others are not."""
    parent = stored_parent(world, LORA, seed=3)
    record = world.store.get(STAGES, parent.key)
    assert record
    below = load_file(record.path("adapter_model.safetensors"))
    dense = dense_safe_lora(world, below, choose == "exact")
    ranked = sorted(dense, key=lambda module: dense[module][0])
    middle = (dense[ranked[5]][0] + dense[ranked[6]][0]) / 2
    overrides: dict[str, dict[str, object]] = {
        "threshold": {"threshold": middle},
        "number": {"choose": "number", "number": 6},
        "exact": {"choose": "number", "number": 6, "projector": "exact"},
    }
    method = SafeLoRA.model_validate({"base": world.base, **overrides[choose]})
    stage = stage_of(world, method, parent=parent)
    assert stage.steps == 0
    loaded = load([stage], CPU)
    slot = open_slot(0, stage, loaded, world.store)
    commit(slot, loaded.adapters, world.store, Workers())
    done = world.store.get(STAGES, stage.key)
    assert done
    after = load_file(done.path("adapter_model.safetensors"))
    for module, (_, cb) in dense.items():
        a, b = (f"base_model.model.{module}.lora_{x}.weight" for x in "AB")
        np.testing.assert_array_equal(after[a], below[a])
        if choose != "exact" and module not in ranked[:6]:
            np.testing.assert_array_equal(after[b], below[b])
        elif choose != "exact":
            np.testing.assert_allclose(after[b], cb, rtol=1e-4, atol=1e-5)
            assert np.abs(cb - below[b]).max() > 0.01
    if choose == "exact":  # of full rank here, where it must be the identity
        changed = [m for m, (_, cb) in dense.items() if np.linalg.norm(cb) > 0]
        for module in changed:
            b = f"base_model.model.{module}.lora_B.weight"
            cosine, cb = dense[module]
            close = min(np.abs(after[b] - cb).max(), np.abs(after[b] - below[b]).max())
            assert close < 1e-4
            assert cosine <= 1 + 1e-9
