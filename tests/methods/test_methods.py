"""The menu: every method of the spec can be built, reads what it says it reads, costs what it says
it costs, and is plain fine-tuning at strength zero."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from menu import METHODS, TRAINED
from passes_counted import counted
from torch import Tensor

from raycib.config import StageSpec
from raycib.config.menu import menu
from raycib.hooks import Hooks
from raycib.methods.cib import CIB
from raycib.methods.salora import SaLoRA
from raycib.models.adapters import AdapterSlots
from raycib.models.group_step import GroupStep
from raycib.models.reference import ReferenceCache
from raycib.models.step import steps_of
from raycib.models.tensors import Totals, collate, together
from raycib.store import Store
from raycib.training.batches import BatchSampler
from raycib.training.loop import take_step, train
from raycib.training.workers import Workers

DIM = 8


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("methods"))


def test_a_method_says_what_a_person_should_know_before_choosing_it():
    for method in menu().values():
        told = [about for about in method.about if isinstance(about, str)]
        assert told and all(about.strip() for about in told), method
    looks = [(method.about.color, method.about.mark) for method in menu().values()]
    assert len(set(looks)) == len(looks)
    assert len({method.about.name for method in menu().values()}) == len(looks)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_changes_something_unless_it_is_plain_lora(name: str):
    assert METHODS[name].off().is_plain
    assert (METHODS[name].build() in (None, Hooks())) == (name == "lora")


def test_a_method_s_memory_has_the_size_of_the_spec_and_of_the_model():
    start: Any = SimpleNamespace(dim=DIM)
    penalty = CIB(queue_size=5, num_negatives=2).build().penalty
    assert penalty is not None
    shapes = {
        name.rpartition(".")[2]: tuple(value.shape)
        for name, value in penalty(start).state_dict().items()
    }
    assert shapes == {
        "reference": (5, 8),
        "current": (5, 8),
        "example": (5,),
        "hardness": (5,),
        "pushed": (5,),
    }
    assert penalty(start) is not penalty(start), "slots do not share a memory"


# What a step reads and costs


class Watched(ReferenceCache):
    """A bank that notes what is read of it."""

    def __init__(self, cache: ReferenceCache, noted: set) -> None:
        super().__init__(cache.tensors, cache.starts)
        object.__setattr__(self, "noted", noted)

    def rows(self, pooling, layer) -> Tensor:
        self.noted.add((pooling, layer))
        return super().rows(pooling, layer)

    def tokens(self, feature, examples, device) -> Tensor:
        self.noted.add(feature)
        return super().tokens(feature, examples, device)


def watch(stream: BatchSampler | None) -> set:
    """What is read of a stream's references from now on."""
    noted: set = set()
    if stream is not None and stream.cache is not None:
        stream.cache = Watched(stream.cache, noted)
    return noted


def second_step(
    folder: Path, name: str, store: Store, cached: bool
) -> tuple[tuple[int, int], set, set]:
    """Passes of decoder and head in a slot's second step (in its first CIB has no negatives), and
    what was read of the references of the task's and of the safety rows."""
    (stage,) = tiny.make_chain(folder, METHODS[name])[-1:]
    adapters, (slot,) = tiny.open_slots([stage], store, cached)
    read = watch(slot.task), watch(slot.safety)
    take_step(adapters, [slot], Workers(), 16)
    with counted(adapters) as calls:
        take_step(adapters, [slot], Workers(), 16)
    return (calls.decoder, calls.head), *read


PASSES = {
    "kl": ((1, 3), (2, 3)),
    "kl, reverse over all tokens": ((1, 3), (2, 3)),
    "vaccine": ((4, 4), (4, 4)),
    "vaccine, as its code has it": ((2, 2), (2, 2)),
    "constrained token": ((1, 1), (2, 2)),
    "sbr": ((2, 1), (3, 1)),
    "safegrad": ((2, 3), (3, 3)),
    "case1": ((2, 2), (2, 2)),
    "case1, convex": ((2, 2), (2, 2)),
    "case1, means over rows": ((2, 2), (2, 2)),
} | {name: ((1, 1), (2, 1)) for name, method in METHODS.items() if isinstance(method, CIB)}
"""Of decoder and head in a step with cached and with live references; (1, 1) for all others. A KL
applies the head to its own states and to the reference's, beside the task's; a reference of
probabilities takes a head of its own where it is live."""


@pytest.mark.parametrize("name", TRAINED)
def test_a_step_costs_the_passes_that_the_method_says(name: str, tiny_folder, store):
    """And reads of the aligned model exactly what its spec names, so that nothing is cached for
    nobody, and no pass is taken for what is cached."""
    method = METHODS[name]
    cached, live = PASSES.get(name, ((1, 1), (1, 1)))
    passes, of_task, of_safety = second_step(tiny_folder, name, store, cached=True)
    assert passes == cached
    assert of_task == set(method.features)
    assert of_safety == set(method.safety_features)
    if name != "cib, semihard and centred":  # which needs the cache
        assert second_step(tiny_folder, name, store, cached=False)[0] == live


# How slots start


def logits(adapters: AdapterSlots, slot: int | None, data: list) -> Tensor:
    """Of a slot's rows, or of the base alone."""
    ids = collate(data, range(8)).ids
    if slot is None:
        with torch.no_grad(), adapters.disabled():
            return adapters.model(ids).logits
    with torch.no_grad(), adapters.route([(slot, len(ids))]):
        return adapters.model(ids).logits


@pytest.mark.parametrize("name", TRAINED)
def test_a_slot_begins_as_what_it_starts_from(name: str, tiny_folder, store):
    """Bit for bit the aligned model, or the frozen adapter below it. SaLoRA starts with factors
    that it subtracts again: the aligned model up to rounding (1e-7 of terms of size 1)."""
    chain = tiny.make_chain(tiny_folder, METHODS[name])
    adapters, (slot,) = tiny.open_slots([chain[-1]], store)
    before, now = logits(adapters, None, slot.task.data), logits(adapters, 0, slot.task.data)
    if chain[:-1]:
        below, _ = tiny.open_slots([child_of(chain[0])], store)
        before = logits(below, 0, slot.task.data)
    if isinstance(METHODS[name], SaLoRA):
        torch.testing.assert_close(now, before, rtol=0, atol=1e-6)
    elif chain[:-1]:
        # Rank 4 with 4 rows of zeros, against rank 4: sums of other lengths.
        torch.testing.assert_close(now, before, rtol=0, atol=1e-6)
    else:
        assert torch.equal(now, before)


def child_of(parent: StageSpec) -> StageSpec:
    """A stage that goes on from another, and so opens as its copy."""
    return parent.model_copy(update={"parent": parent})


@pytest.mark.parametrize("name", ["o lora", "o lora, as its paper has it"])
def test_an_earlier_adapter_is_kept_to_the_bit_and_exported_with_the_new_one(
    name: str, tiny_folder, store
):
    """Rank 4 above rank 4: the lower half of what is exported is the parent's file, unchanged; and
    taking it out changes what the slot computes."""
    first, stage = tiny.make_chain(tiny_folder, METHODS[name])
    tiny.train_chain((first, stage), store)
    parent, own = (tiny.adapter_of(store, one) for one in (first, stage))
    assert parent.keys() == own.keys()
    for key, earlier in parent.items():
        kept = own[key][4:] if "lora_A" in key else own[key][:, 4:]
        assert kept.numpy().tobytes() == earlier.contiguous().numpy().tobytes(), key
        new = own[key][:4] if "lora_A" in key else own[key][:, :4]
        assert distance(new, earlier) > 0.1
    adapters, (slot,) = tiny.open_slots([stage], store)
    frozen = {name: module.frozen[0] for name, module in adapters.modules_of(0).items()}
    before = {name: tuple(part.clone() for part in parts) for name, parts in frozen.items()}
    train(adapters, [slot], Workers(), 16)
    for name, module in adapters.modules_of(0).items():
        assert all(map(torch.equal, module.frozen[0], before[name]))
        assert not any(part.requires_grad for part in module.frozen[0])
    whole = logits(adapters, 0, slot.task.data)
    for module in adapters.modules_of(0).values():
        module.frozen.clear()
    assert (logits(adapters, 0, slot.task.data) - whole).abs().max() > 1e-3


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("name", ["salora", "salora, default start"])
def test_salora_moves_no_fixed_direction_however_long_it_trains(name: str, tiny_folder, store):
    """What it exports, as an ordinary adapter, has nothing in the span of Uc: Uc' (B A) = 0 to
    rounding, in every module, after training; and the rest did move."""
    (stage,) = tiny.make_chain(tiny_folder, METHODS[name])
    adapters, (slot,) = tiny.open_slots([stage], store)
    for _ in range(stage.steps):
        take_step(adapters, [slot], Workers(), 16)
    for module in adapters.modules_of(0).values():
        fixed = module.fixed[0]
        assert fixed.shape == (module.base.out_features, 4)
        torch.testing.assert_close(fixed.T @ fixed, torch.eye(4), rtol=0, atol=1e-5)
        a, b, scale = module.factors(0)
        update = scale * b.detach() @ a.detach()
        assert (fixed.T @ update).abs().max() < 1e-6
        assert update.norm() > 1e-3


def test_a_stage_s_subspaces_are_computed_once_for_all_seeds_and_strengths(tiny_folder, tmp_path):
    own = Store(tmp_path)
    stages = [
        tiny.make_chain(tiny_folder, METHODS["salora"].model_copy(update={"safety_rank": rank}))[0]
        for rank in (2, 4)
    ]
    tiny.open_slots([*stages, stages[0].model_copy(update={"seed": 3})], own)
    assert len(own.keys("subspaces")) == 2, "of the safety rows and of the task"


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [("salora", "subspaces", "calibration_rows"), ("ewc", "fishers", "fisher_rows")],
)
def test_what_is_computed_once_is_kept_by_all_that_it_depends_on(
    name: str, kind: str, count: str, tiny_folder, tmp_path
):
    """How many rows, which, of which layers and which model: each is computed anew."""
    own = Store(tmp_path)
    method = tiny.grounded(METHODS[name], tiny_folder)
    first = tiny.make_stage(tiny_folder, method=method)
    other = tiny.make_stage(tiny_folder, 24).task
    others: list[dict[str, Any]] = [
        {"method": method.model_copy(update={count: 5})},
        {"method": method.model_copy(update={"safety": other})},
        {"lora": first.lora.model_copy(update={"targets": ("q_proj",)})},
        {"model": tiny.make_base(tiny_folder)},
    ]
    kept = []
    for changes in ({}, *others):
        tiny.open_slots([first.model_copy(update=changes)], own)
        kept.append(len(own.keys(kind)))
    assert kept == sorted(set(kept)), kept
    tiny.open_slots([first], own)
    assert len(own.keys(kind)) == kept[-1]


def test_the_task_s_rows_and_the_safety_rows_that_a_stage_sees(tiny_folder, store):
    """Of 48 rows: 0.6 are 29, the same for a seed and others for another; 0.3 of safety rows are
    14 more than the task's, of 12 there are."""

    def rows(name: str, seed: int = 0) -> list:
        stage = tiny.make_chain(tiny_folder, METHODS[name], seed=seed)[-1]
        (slot,) = tiny.open_slots([stage], store)[1]
        assert slot.stage.steps == 2 * -(-len(slot.task.data) // 16)
        return list(slot.task.data)

    everything, subset = rows("lora"), rows("random subset")
    assert len(everything) == 48
    assert len(subset) == 29
    assert subset == rows("random subset") != rows("random subset", seed=1)
    assert [one for one in everything if one in subset] == subset, "in the task's order"
    mixed = rows("safety mix")
    assert mixed[:48] == everything
    added = [(one.prompt, one.response) for one in mixed[48:]]
    assert (len(added), len(set(added))) == (14, 12), "all twelve before one comes twice"


# Mistakes


def test_a_perturbation_that_comes_too_late_is_refused(tiny_folder, store):
    (stage,) = tiny.make_chain(tiny_folder, METHODS["lora"])
    adapters, (slot,) = tiny.open_slots([stage], store)
    batch = collate(slot.task.data, range(4))
    step = steps_of(GroupStep(adapters, *together({0: batch}), {0: Totals(4, 1)}, {}))[0]
    nothing = [torch.zeros(*batch.ids.shape, step.dim) for _ in range(2)]
    step.perturb(nothing)
    _ = step.nll
    with pytest.raises(RuntimeError, match="went through the model before they were perturbed"):
        step.perturb(nothing)
