"""No nonsense is stored, a slot's trouble is its own, and stages go on from others."""

import json
import math
from pathlib import Path

import pytest
import tiny
import torch
from menu import METHODS

from raycib.config import PlainLoRA, StageSpec
from raycib.config.plan import AdapterGroup, Job
from raycib.invariances.bench import (
    ALONE,
    CPU,
    TRAINER,
    distance,
    gradients,
    largest,
    weights,
)
from raycib.models.adapters import AdapterSlots
from raycib.store import Store
from raycib.training.group import HISTORY_FILE, STAGES, commit, load, train_group, validate
from raycib.training.loop import take_step, train
from raycib.training.slot import Slot

# No nonsense is stored, and a slot's trouble is its own


def finished_slot(folder: Path, store: Store) -> tuple[AdapterSlots, Slot]:
    adapters, (slot,) = tiny.open_slots([tiny.last_of(folder, PlainLoRA())], store)
    train(adapters, [slot], ALONE, 16)
    assert validate(slot) is None
    return adapters, slot


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_no_number_is_named(value: float, tiny_folder, store):
    _, slot = finished_slot(tiny_folder, store)
    name, parameter = list(slot.parameters.items())[-1]
    with torch.no_grad():
        parameter[0, 0] = value
    assert validate(slot) == f"{name} is not finite"


def test_missing_steps_are_named(tiny_folder, store):
    _, slot = finished_slot(tiny_folder, store)
    slot.step -= 1
    assert validate(slot) == "took 5 of 6 optimiser steps"


def test_a_gradient_that_never_came_is_named(tiny_folder, store):
    _, slot = finished_slot(tiny_folder, store)
    slot.gradient_seen = False
    assert validate(slot) == "no gradient ever reached the adapter"


def test_a_loss_that_is_no_number_is_named(tiny_folder, store):
    _, slot = finished_slot(tiny_folder, store)
    slot.history[2]["task"] = math.nan
    assert validate(slot) == "a loss in the history is not finite"


def test_an_adapter_that_nothing_reaches_sees_no_gradient(tiny_folder, store):
    """A real way to get there: the adapter is switched off while it trains."""
    adapters, (slot,) = tiny.open_slots([tiny.last_of(tiny_folder, PlainLoRA())], store)
    with torch.no_grad():
        for parameter in adapters.model.get_decoder().norm.parameters():
            parameter.zero_()  # nothing below the final norm matters any more
    train(adapters, [slot], ALONE, 16)
    assert validate(slot) == "no gradient ever reached the adapter"


def sick_group(folder: Path) -> list[StageSpec]:
    """Three slots; the middle one has a learning rate that blows it up in its second step."""
    wild = TRAINER.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0})
    return [
        tiny.last_of(folder, METHODS["cib"]),
        tiny.last_of(folder, METHODS["cib"], trainer=wild),
        tiny.last_of(folder, METHODS["lora"], seed=3),
    ]


def test_a_slot_that_breaks_does_not_disturb_the_others(tiny_folder, store):
    """They end as they do without it (as in any other group), and the broken one says why."""
    stages = sick_group(tiny_folder)
    adapters, slots = tiny.open_slots(stages, store)
    train(adapters, slots, ALONE, 16)
    sick = slots.pop(1)
    assert sick.failed
    assert "not finite at step" in sick.failed
    assert not sick.active
    for slot, other in zip(slots, tiny.trained([stages[0], stages[2]], store), strict=True):
        assert slot.failed is None
        assert slot.step == slot.stage.steps
        assert distance(weights(slot), weights(other)) < 1e-3
        assert largest(slot, other) < 1e-5


def test_only_the_healthy_slots_of_a_group_are_stored(tiny_folder, tmp_path):
    """The failure is returned by key; running again tries that stage alone, and says it again."""
    stages, store = sick_group(tiny_folder), Store(tmp_path)
    group = AdapterGroup(name="sick", jobs=tuple(Job(stage=stage, evals=()) for stage in stages))
    steps: list[int] = []
    for _ in range(2):
        failed = train_group(
            group, load(stages, CPU), store, ALONE, 16, 2, lambda slots: steps.append(len(slots))
        )
        assert list(failed) == [stages[1].key]
        assert "not finite at step" in failed[stages[1].key]
        healthy = {stages[0].key, stages[2].key}
        assert set(store.keys(STAGES)) == healthy
        assert store.keys("checkpoints") == []
    assert steps.count(3) == 6, "the first time, three slots for six steps"
    assert set(steps) == {3, 1}, "the second time, the broken one alone"


def test_a_committed_stage_holds_its_adapter_its_history_and_its_provenance(
    tiny_folder, store, tmp_path
):
    adapters, slot = finished_slot(tiny_folder, store)
    record = commit(slot, adapters, Store(tmp_path), ALONE)
    assert set(record.files) == {"adapter_model.safetensors", "adapter_config.json", HISTORY_FILE}
    assert StageSpec.model_validate(record.about["spec"]) == slot.stage
    assert (record.about["steps"], record.about["rows"], record.about["workers"]) == (6, 48, 1)
    assert record.about["versions"]["code"]
    assert record.about["last"]["step"] == 6
    steps = [[len(slot.task.data[row]) for row in slot.task.rows(step)] for step in range(6)]
    assert record.about["tokens"] == {
        "steps": 6,
        "useful": sum(map(sum, steps)),
        "computed": sum(16 * max(lengths) for lengths in steps),
    }


def test_a_stage_goes_on_from_its_parent(tiny_folder, tmp_path):
    """It begins where the parent ended, so better than the parent began."""
    parent = tiny.last_of(tiny_folder, PlainLoRA())
    child = parent.model_copy(update={"parent": parent, "seed": 5})
    own = Store(tmp_path)
    tiny.train_chain((parent, child), own)
    first, second = history(own, parent), history(own, child)
    assert second[0]["task"] < first[0]["task"] - 0.05
    assert own.keys(STAGES) == sorted([parent.key, child.key])


def history(store: Store, stage: StageSpec) -> list[dict[str, float]]:
    record = store.get(STAGES, stage.key)
    assert record
    return json.loads(record.path(HISTORY_FILE).read_text())


def test_a_new_adapter_is_trained_on_top_of_its_parent_s(tiny_folder, tmp_path):
    """It begins at the loss that going on begins at, and with factors drawn from its own seed."""
    parent = tiny.last_of(tiny_folder, PlainLoRA())
    goes_on = parent.model_copy(update={"parent": parent, "seed": 5})
    on_top = goes_on.model_copy(update={"fresh": True})
    own = Store(tmp_path)
    tiny.train_chain((parent, goes_on, on_top), own)
    same, other = (history(own, stage)[0]["task"] for stage in (goes_on, on_top))
    assert other == pytest.approx(same, rel=1e-6)
    _, (slot,) = tiny.open_slots([on_top], own)
    fresh, _ = tiny.open_slots([parent.model_copy(update={"seed": 5})], own)
    for name, start in fresh.parameters_of(0).items():
        assert torch.equal(slot.parameters[name], start)
    assert history(own, on_top)[-1]["task"] < other


def test_a_slot_that_cannot_start_does_not_stop_the_others(tiny_folder, tmp_path):
    """Its parent failed, say: the group names it, and trains and stores the rest."""
    parent = tiny.last_of(tiny_folder, PlainLoRA())
    orphan = parent.model_copy(update={"parent": parent, "seed": 5})
    healthy = tiny.last_of(tiny_folder, METHODS["cib"])
    group = AdapterGroup(
        name="orphan", jobs=tuple(Job(stage=s, evals=()) for s in (orphan, healthy))
    )
    own = Store(tmp_path)
    failed = train_group(group, load([orphan, healthy], CPU), own, ALONE, 16, 2)
    assert list(failed) == [orphan.key]
    assert f"its parent {parent.short} is missing" in failed[orphan.key]
    assert own.keys(STAGES) == [healthy.key]
    assert own.keys("checkpoints") == []


def test_clipping_is_by_a_slot_s_own_norm(tiny_folder, store):
    """The norm in the history is the one before clipping; the gradient's afterwards is at most
    max_grad_norm, whatever the other slot's is."""
    tight = TRAINER.model_copy(update={"max_grad_norm": 0.01})
    stages = [
        tiny.last_of(tiny_folder, PlainLoRA(), trainer=tight),
        tiny.last_of(tiny_folder, PlainLoRA(), seed=1),
    ]
    adapters, slots = tiny.open_slots(stages, store)
    take_step(adapters, slots, ALONE, 16)
    first, second = (float(gradients(slot).norm()) for slot in slots)
    assert slots[0].history[0]["grad_norm"] > 0.1
    assert first == pytest.approx(0.01, rel=1e-3)
    assert second == pytest.approx(min(1.0, slots[1].history[0]["grad_norm"]), rel=1e-3)
