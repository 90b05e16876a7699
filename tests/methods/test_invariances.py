"""The six invariances of every method of the menu, by `raycib.invariances` on the tiny model."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from menu import METHODS, SAFETY, TRAINED

from raycib.config import PlainLoRA
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
from raycib.store import Store
from raycib.training.loop import take_step, train

each_method = pytest.mark.parametrize("name", METHODS)
each_trained_method = pytest.mark.parametrize("name", TRAINED)
"""A derived adapter takes no step: it has no micro-batches, no memory and no live references."""


def rows_of(folder: Path, count: int) -> Any:
    return tiny.make_stage(folder, count).task


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
    (slot,) = tiny.trained([tiny.last_of(tiny_folder, METHODS[name])], store)
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


@pytest.mark.timeout(900)
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
        tiny.last_of(tiny_folder, method, seed=number)
        for number, method in enumerate(TRAINED.values())
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
    stages = [
        tiny.last_of(tiny_folder, METHODS[kind], seed=seed) for seed, kind in enumerate(kinds)
    ]
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
        tiny.last_of(tiny_folder, METHODS["cib"]),
        tiny.last_of(tiny_folder, METHODS["cib"], trainer=small),
    ]
    for slot, stage in zip(tiny.trained(stages, store, micro=8), stages, strict=True):
        (alone,) = tiny.trained([stage], store, micro=8)
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
        stages = [tiny.last_of(tiny_folder, PlainLoRA()), stage, tiny.last_of(tiny_folder, third)]
        results.append(tiny.trained(stages, store))
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
    adapters, (slot,) = tiny.open_slots([tiny.last_of(tiny_folder, METHODS[name])], store)
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
    stage = tiny.last_of(tiny_folder, METHODS["cib"])
    _, (slot,) = tiny.open_slots([stage], store)
    adapters, (again,) = tiny.open_slots([stage], store)
    again.restore(*slot.state())
    train(adapters, [again], ALONE, 16)
    (other,) = tiny.trained([stage], store)
    assert torch.equal(weights(again), weights(other))
