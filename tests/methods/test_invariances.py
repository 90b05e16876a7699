"""The six invariances of every method of the menu, by `raycib.invariances` on the tiny model; and
that no nonsense is stored, and a slot's trouble is its own."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from menu import METHODS, SAFETY, TRAINED

from raycib.config import Method, PlainLoRA, StageSpec
from raycib.config.plan import AdapterGroup, Job
from raycib.data.rows import describe_task
from raycib.invariances import (
    accumulation,
    packing,
    reference_cache,
    resume,
    workers,
    zero_strength,
)
from raycib.invariances.bench import (
    ALONE,
    CPU,
    TRAINER,
    Bench,
    distance,
    gradients,
    largest,
    unequal,
    weights,
)
from raycib.methods.cib import CIB
from raycib.methods.sbr import SBR
from raycib.model_files import describe
from raycib.models.adapters import AdapterSlots
from raycib.store import Store
from raycib.training.group import HISTORY_FILE, STAGES, commit, load, train_group, validate
from raycib.training.loop import take_step, train
from raycib.training.slot import Slot

each_method = pytest.mark.parametrize("name", METHODS)
each_trained_method = pytest.mark.parametrize("name", TRAINED)
"""A derived adapter takes no step: it has no micro-batches, no memory and no live references."""


@pytest.fixture(scope="module")
def bench(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The tiny model, 48 rows, and a store that all tests share."""
    return Bench(
        model=describe(str(tiny_folder / "model")),
        base=tiny.make_base(tiny_folder),
        task=rows_of(tiny_folder, 48),
        safety=tiny.make_safety(tiny_folder),
        root=tmp_path_factory.mktemp("bench"),
    )


@pytest.fixture(scope="module")
def store(bench: Bench) -> Store:
    """References, subspaces and parents that the slots of all tests share."""
    return bench.store


def rows_of(folder: Path, count: int) -> Any:
    return tiny.make_stage(folder, count).task


def chain_of(folder: Path, method: Method, rows: int = 48, **overrides: Any) -> tuple:
    """48 rows in batches of 16, twice: 6 steps; before it the parent, where there is one."""
    return tiny.make_chain(folder, method, rows, **{"trainer": TRAINER, **overrides})


def stage_of(folder: Path, method: Method, rows: int = 48, **overrides: Any) -> StageSpec:
    return chain_of(folder, method, rows, **overrides)[-1]


def trained(
    stages: list[StageSpec], store: Store, micro: int = 16, cached: bool = True
) -> list[Slot]:
    adapters, slots = tiny.open_slots(stages, store, cached)
    train(adapters, slots, ALONE, micro)
    assert [validate(slot) for slot in slots] == [None] * len(slots)
    return slots


@each_method
def test_zero_strength_gives_the_bytes_of_plain_lora(name: str, tiny_folder, bench: Bench):
    finding = zero_strength(bench, tiny.grounded(METHODS[name], tiny_folder))
    assert finding.passed, finding


def test_a_method_that_does_nothing_passes_nothing(bench: Bench):
    """It would pass every other check, as plain LoRA does."""
    finding = zero_strength(bench, CIB(lam=1, queue_size=512, num_negatives=512))
    assert not finding.passed
    assert finding.about == "at 1 it does nothing"


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if isinstance(m, CIB)])
def test_the_contrast_begins_once_the_queue_holds_enough(name: str, tiny_folder, store):
    """K = 8 of the 16 rows of the first step; the anchor alone begins at once."""
    (slot,) = trained([stage_of(tiny_folder, METHODS[name])], store)
    active = ["contrast" in entry for entry in slot.history]
    assert active == [METHODS[name] == METHODS["cib, anchor alone"], *[True] * 5]


@each_method
def test_micro_batches_change_no_step(name: str, tiny_folder, bench: Bench):
    finding = accumulation(bench, tiny.grounded(METHODS[name], tiny_folder))
    assert finding.passed, finding


@pytest.mark.parametrize(
    ("rows", "tokens", "strategy"),
    [
        pytest.param(47, None, "replicated", id="an uneven last batch"),
        pytest.param(
            33, 200, "replicated", id="by length, with a last batch of one row: a worker has none"
        ),
        pytest.param(33, 200, "fsdp2", id="the same, with half of each layer on each worker"),
    ],
)
def test_two_workers_give_the_adapter_of_one(rows, tokens, strategy, tiny_folder, bench: Bench):
    methods = [tiny.grounded(method, tiny_folder) for method in METHODS.values()]
    finding = workers(bench, methods, rows_of(tiny_folder, rows), tokens, strategy)
    assert finding.passed, finding
    assert Store(bench.root / f"{strategy}-{rows}").keys("checkpoints") == []


@pytest.mark.timeout(900)  # 30 s on a core of its own
def test_a_group_gives_the_adapters_of_separate_runs(tiny_folder, bench: Bench):
    methods = [tiny.grounded(method, tiny_folder) for method in METHODS.values()]
    found = list(packing(bench, [*methods, METHODS["cib"]]))
    assert len(found) == len(METHODS) + 1
    assert [(method, finding) for method, finding in found if not finding.passed] == []


@pytest.mark.parametrize("packed", [True, False])
def test_rows_dealt_by_tokens_change_no_step_of_a_group(
    tiny_folder, bench: Bench, packed: bool, monkeypatch: pytest.MonkeyPatch
):
    """End to end or, as where a model mixes them, by length. Of all methods side by side, each with
    an order of its own: a micro-batch has rows of some of them, and the queue of CIB is filled in
    the order in which rows were drawn. SBR's weight of 50 multiplies rounding: 3e-5 was seen of it,
    1e-6 of others."""
    monkeypatch.setattr("raycib.training.loop.packs", lambda _: packed)
    stages = [
        stage_of(tiny_folder, method, seed=number) for number, method in enumerate(TRAINED.values())
    ]
    groups = []
    for tokens in (None, 400):
        adapters, slots = bench.open(stages)
        take_step(adapters, slots, ALONE, 16, tokens)
        groups.append(slots)
    for drawn, dealt in zip(*groups, strict=True):
        assert distance(gradients(dealt), gradients(drawn)) < 1e-4, drawn.stage.method
        assert dealt.tokens["useful"] == drawn.tokens["useful"]
        assert dealt.tokens["computed"] < drawn.tokens["computed"]
        assert not packed or dealt.tokens["computed"] == dealt.tokens["useful"]
        for name, value in dealt.objective.state_dict().items():
            torch.testing.assert_close(
                value, drawn.objective.state_dict()[name], rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("tokens", [None, 300], ids=["as drawn", "cut by tokens"])
def test_slots_in_passes_of_their_own_have_the_bytes_of_separate_runs(tokens, tiny_folder, store):
    """Everything that trains them, moments and memories included."""
    kinds = ("lora", "cib", "ema", "safegrad", "sbr", "vaccine")
    stages = [stage_of(tiny_folder, METHODS[kind], seed=seed) for seed, kind in enumerate(kinds)]
    together, slots = tiny.open_slots(stages, store)
    together.apart = True
    train(together, slots, ALONE, 5, micro_batch_tokens=tokens)
    for stage, slot in zip(stages, slots, strict=True):
        adapters, (alone,) = tiny.open_slots([stage], store)
        train(adapters, [alone], ALONE, 5, micro_batch_tokens=tokens)
        assert unequal(slot.state()[0], alone.state()[0]) == 0, stage.method.kind
        assert slot.history == alone.history


def test_slots_with_unequal_batches_share_a_group(tiny_folder, store):
    """16 and 12 rows a step: groups of rows of different sizes in every product."""
    small = TRAINER.model_copy(update={"batch_size": 12})
    stages = [
        stage_of(tiny_folder, METHODS["cib"]),
        stage_of(tiny_folder, METHODS["cib"], trainer=small),
    ]
    for slot, stage in zip(trained(stages, store, micro=8), stages, strict=True):
        (alone,) = trained([stage], store, micro=8)
        assert distance(weights(slot), weights(alone)) < 1e-3
        assert largest(slot, alone) < 1e-5


@pytest.mark.parametrize("name", ["sbr", "safegrad"])
def test_safety_rows_are_a_slot_s_own(name: str, tiny_folder, tmp_path, store):
    """Whatever safety data its neighbour has: plain LoRA ends with the same bytes, and a slot with
    safety rows of its own, which share a pass with the neighbour's, with the same up to rounding,
    as the widest row decides how far all are padded."""
    tiny.make_rows(tmp_path / "other.jsonl", 20, seed=9)
    other = describe_task("other", str(tmp_path / "other.jsonl"), max_length=64)
    method = tiny.grounded(METHODS[name], tiny_folder)
    third = SBR(safety=SAFETY, anchors=3, lam=10.0)
    results = []
    for safety in (tiny.make_safety(tiny_folder), other):
        second = method.model_copy(update={"safety": safety})
        stage = tiny.make_stage(tiny_folder, method=second, trainer=TRAINER)
        stages = [stage_of(tiny_folder, PlainLoRA()), stage, stage_of(tiny_folder, third)]
        results.append(trained(stages, store))
    (plain, moved, anchored), (same, moved_too, anchored_too) = results
    assert torch.equal(weights(plain), weights(same))
    assert plain.history == same.history
    assert distance(weights(anchored), weights(anchored_too)) < 1e-5
    assert largest(anchored, anchored_too) < 1e-6
    assert distance(weights(moved), weights(moved_too)) > 1e-3, "so the data did matter"


@each_method
def test_a_restored_slot_goes_on_as_if_nothing_had_happened(name: str, tiny_folder, bench: Bench):
    """`test_resume.py` does the same with real kills."""
    finding = resume(bench, tiny.grounded(METHODS[name], tiny_folder))
    assert finding.passed, finding


@each_trained_method
def test_cached_references_equal_live_ones(name: str, tiny_folder, bench: Bench):
    finding = reference_cache(bench, tiny.grounded(METHODS[name], tiny_folder))
    assert finding.passed, finding


@each_trained_method
def test_a_state_holds_every_buffer_and_every_moment(name: str, tiny_folder, store):
    adapters, (slot,) = tiny.open_slots([stage_of(tiny_folder, METHODS[name])], store)
    take_step(adapters, [slot], ALONE, 16)
    tensors, plain = slot.state()
    for parameter in slot.parameters:
        names = {f"adamw.{parameter}.{part}" for part in ("step", "exp_avg", "exp_avg_sq")}
        assert names | {f"adapter.{parameter}"} <= tensors.keys()
    memory = {n.removeprefix("objective.") for n in tensors if n.startswith("objective.")}
    assert memory == set(slot.objective.state_dict())
    followed = {n.removeprefix("follower.") for n in tensors if n.startswith("follower.")}
    assert followed == (set(slot.hook.state_dict()) if slot.hook else set())
    assert bool(followed) == (name == "ema")
    assert plain == {
        "step": 1,
        "gradient_seen": True,
        "history": slot.history,
        "failed": None,
        "tokens": dict(slot.tokens),
    }


def test_a_slot_is_restored_before_its_first_step_too(tiny_folder, store):
    """A group is saved whole, with slots that failed at once: they have no moments yet, and start
    again from where they were."""
    stage = stage_of(tiny_folder, METHODS["cib"])
    _, (slot,) = tiny.open_slots([stage], store)
    adapters, (again,) = tiny.open_slots([stage], store)
    again.restore(*slot.state())
    train(adapters, [again], ALONE, 16)
    (other,) = trained([stage], store)
    assert torch.equal(weights(again), weights(other))


# No nonsense is stored, and a slot's trouble is its own


def finished_slot(folder: Path, store: Store) -> tuple[AdapterSlots, Slot]:
    adapters, (slot,) = tiny.open_slots([stage_of(folder, PlainLoRA())], store)
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
    adapters, (slot,) = tiny.open_slots([stage_of(tiny_folder, PlainLoRA())], store)
    with torch.no_grad():
        for parameter in adapters.model.get_decoder().norm.parameters():
            parameter.zero_()  # nothing below the final norm matters any more
    train(adapters, [slot], ALONE, 16)
    assert validate(slot) == "no gradient ever reached the adapter"


def sick_group(folder: Path) -> list[StageSpec]:
    """Three slots; the middle one has a learning rate that blows it up in its second step."""
    wild = TRAINER.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0})
    return [
        stage_of(folder, METHODS["cib"]),
        stage_of(folder, METHODS["cib"], trainer=wild),
        stage_of(folder, METHODS["lora"], seed=3),
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
    for slot, other in zip(slots, trained([stages[0], stages[2]], store), strict=True):
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
    parent = stage_of(tiny_folder, PlainLoRA())
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
    parent = stage_of(tiny_folder, PlainLoRA())
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
    parent = stage_of(tiny_folder, PlainLoRA())
    orphan = parent.model_copy(update={"parent": parent, "seed": 5})
    healthy = stage_of(tiny_folder, METHODS["cib"])
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
        stage_of(tiny_folder, PlainLoRA(), trainer=tight),
        stage_of(tiny_folder, PlainLoRA(), seed=1),
    ]
    adapters, slots = tiny.open_slots(stages, store)
    take_step(adapters, slots, ALONE, 16)
    first, second = (float(gradients(slot).norm()) for slot in slots)
    assert slots[0].history[0]["grad_norm"] > 0.1
    assert first == pytest.approx(0.01, rel=1e-3)
    assert second == pytest.approx(min(1.0, slots[1].history[0]["grad_norm"]), rel=1e-3)
