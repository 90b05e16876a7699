"""Six claims about every method of the menu (see `menu.py`), in float32 on the tiny model.

Where bytes can be equal they must be. Elsewhere only the order of float32 sums may differ, by
about 1e-7 of their size a step. AdamW divides each gradient by its own size, so an element whose
gradient is nearly zero may step differently by a whole learning rate; what is compared over many
steps is therefore the relative norm of the difference of all weights of a lane. A negative that
is another row, or a row in another place of the queue, changes it by 1e-2 and more.
"""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conftest import Ask
from menu import METHODS, at_zero, works_live
from torch import Tensor

from raycib.adapters import LaneAdapters
from raycib.data.chat import encode_all
from raycib.data.rows import rows_of
from raycib.methods import build_method
from raycib.models import load_tokenizer
from raycib.plan import Job, Pack
from raycib.reference import ReferenceBank
from raycib.spec import LoRASpec, MethodSpec, PlainLoRA, StageSpec, TrainerSpec
from raycib.step import PackStep
from raycib.store import Store
from raycib.tensors import Totals, collate
from raycib.training.lane import Lane, generator
from raycib.training.loop import take_step, train
from raycib.training.pack import HISTORY_FILE, STAGES, commit, load, nonsense, train_pack
from raycib.training.workers import Workers

ALONE = Workers()
CPU = torch.device("cpu")
TRAINER = TrainerSpec(learning_rate=5e-3, batch_size=16, warmup_steps=2, epochs=2)
each_method = pytest.mark.parametrize("name", METHODS)


def stage_of(folder: Path, method: MethodSpec, rows: int = 48, **changes: Any) -> StageSpec:
    """48 rows in batches of 16, twice: 6 steps."""
    return tiny.make_stage(folder, rows, method=method, **{"trainer": TRAINER, **changes})


def bank_of(
    adapters: LaneAdapters, lane: int, stage: StageSpec, data: list
) -> ReferenceBank | None:
    """What the method reads of the aligned model, computed in one batch."""
    readings = build_method(stage.method, adapters.model.config.hidden_size).references
    if not readings:
        return None
    batches = {lane: collate(data, range(len(data)))}
    step = PackStep(adapters, batches, {lane: Totals(1, 1)}, {}).steps()[lane]
    return ReferenceBank({".".join(reading): step.reference(*reading) for reading in readings})


def open_lanes(stages: list[StageSpec], cached: bool = True) -> tuple[LaneAdapters, list[Lane]]:
    """A fresh base with a fresh lane for every stage, as `train_pack` makes them."""
    loaded, lanes = load(stages, CPU), []
    tokenizer = load_tokenizer(stages[0].model.source)
    for index, stage in enumerate(stages):
        loaded.adapters.initialise(index, generator(stage.seed, "init"))
        data = encode_all(tokenizer, rows_of(stage.task), stage.task.max_length)
        bank = bank_of(loaded.adapters, index, stage, data) if cached else None
        objective = build_method(stage.method, loaded.adapters.model.config.hidden_size).objective
        parameters = loaded.adapters.parameters_of(index)
        lanes.append(Lane(index, stage, data, bank, objective, parameters))
    return loaded.adapters, lanes


def trained(stages: list[StageSpec], micro: int = 16, cached: bool = True) -> list[Lane]:
    adapters, lanes = open_lanes(stages, cached)
    train(adapters, lanes, ALONE, micro)
    assert [nonsense(lane) for lane in lanes] == [None] * len(lanes)
    return lanes


def weights(lane: Lane) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in lane.parameters.values()])


def gradients(lane: Lane) -> Tensor:
    """As the optimiser saw them: clipped."""
    return torch.cat([p.grad.reshape(-1) for p in lane.parameters.values() if p.grad is not None])


def distance(one: Tensor, other: Tensor) -> float:
    """|one - other| / |other|."""
    return float((one - other).norm() / other.norm())


def same_bytes(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Also of two zeros of different sign, which torch.equal calls equal."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.numpy().tobytes() == other[name].numpy().tobytes(), name


def losses(lane: Lane, terms: tuple[str, ...] = ("task", "contrast")) -> Tensor:
    return torch.tensor([[entry.get(term, 0.0) for term in terms] for entry in lane.history])


def largest(lane: Lane, other: Lane) -> float:
    """Of the relative differences of all losses of all steps; of absolute ones below 1 nat."""
    size = losses(other).clamp(min=1)
    return float(((losses(lane) - losses(other)).abs() / size).max())


# 1. Zero strength


@each_method
def test_zero_strength_gives_the_bytes_of_plain_lora(name: str, tiny_folder, tmp_path):
    """Through `train_pack`, as for a user who asks for lambda = 0: the same files."""
    found = []
    for number, method in enumerate((PlainLoRA(), at_zero(METHODS[name]))):
        stage = stage_of(tiny_folder, method)
        pack, store = (
            Pack(name="zero", jobs=(Job(stage=stage, evals=()),)),
            Store(tmp_path / str(number)),
        )
        assert not train_pack(pack, load([stage], CPU), store, ALONE, 16, 100)
        record = store.get(STAGES, stage.key)
        assert record
        found.append(record.files)
    assert found[0] == found[1]


@each_method
def test_strength_matters(name: str, tiny_folder):
    """Else the other claims would be about plain LoRA: the method moves the adapter elsewhere."""
    method = METHODS[name]
    if method.strength == 0:
        pytest.skip("plain LoRA is what the others are compared with")
    (own,) = trained([stage_of(tiny_folder, method)])
    (plain,) = trained([stage_of(tiny_folder, PlainLoRA())])
    assert distance(weights(own), weights(plain)) > 0.01
    active = (losses(own)[:, 1] != 0).tolist()
    assert active == [False, True, True, True, True, True]


# 2. Accumulation


@each_method
def test_four_micro_batches_of_4_give_the_step_of_one_of_16(name: str, tiny_folder):
    """After three steps in common: the same gradient, the same losses, and the same memory."""
    stage = stage_of(tiny_folder, METHODS[name])
    results = []
    for micro in (16, 4, 5):  # 5: the last micro-batch has a single row
        adapters, (lane,) = open_lanes([stage])
        for _ in range(3):
            take_step(adapters, [lane], ALONE, 16)
        take_step(adapters, [lane], ALONE, micro)
        results.append(lane)
    whole, *others = results
    for lane in others:
        # Sums of 16 rows and 200 tokens in another order: rounding of 6e-8 a term, seldom more
        # than a few 1e-6 of the whole.
        assert distance(gradients(lane), gradients(whole)) < 1e-5
        assert lane.history[3] == pytest.approx(whole.history[3], rel=1e-5)
        memory, expected = lane.objective.state_dict(), whole.objective.state_dict()
        for key, value in expected.items():
            torch.testing.assert_close(memory[key], value, rtol=1e-4, atol=1e-5)


@each_method
def test_accumulation_gives_the_same_adapter(name: str, tiny_folder):
    stage = stage_of(tiny_folder, METHODS[name])
    (whole,), (parts,) = trained([stage], micro=16), trained([stage], micro=4)
    assert distance(weights(parts), weights(whole)) < 1e-3
    assert largest(parts, whole) < 1e-5


# 3. Workers


def test_two_workers_give_the_adapter_of_one(tiny_folder, tmp_path, ask_trainer: Ask):
    """Two real processes joined by gloo, each with half the rows of every lane: all methods in
    one pack. 47 rows, so that the last batch is one that two workers share unevenly."""
    stages = [stage_of(tiny_folder, method, rows=47) for method in METHODS.values()]
    pack = Pack(name="shared", jobs=tuple(Job(stage=stage, evals=()) for stage in stages))
    ask = {"pack": pack.model_dump(mode="json"), "every": 2, "log": str(tmp_path / "log")}
    shared, alone = Store(tmp_path / "two"), Store(tmp_path / "one")
    answer = ask_trainer(how="together", store=shared.root, micro=4, **ask)
    assert answer["statuses"] == [0, 0]
    assert ask_trainer(how="once", store=alone.root, **ask)["status"] == 0
    for index, stage in enumerate(stages):
        two, one = (adapter(store, stage) for store in (shared, alone))
        assert distance(joined(two), joined(one)) < 1e-3, stage.method
        # Both workers end with the same bytes, or they would drift apart.
        first, second = (Path(shared.root, f"worker-{rank}-{index}") for rank in (0, 1))
        assert first.read_bytes() == second.read_bytes()
    assert shared.keys("checkpoints") == []


def adapter(store: Store, stage: StageSpec) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    record = store.get(STAGES, stage.key)
    assert record
    return load_file(record.path("adapter_model.safetensors"))


def joined(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].reshape(-1) for name in sorted(tensors)])


# 4. Packing


def mixed_pack(folder: Path) -> list[StageSpec]:
    """Every method, with seeds, rates, schedules, ranks, scales and targets that differ; 30 steps
    each, but for one lane that ends earlier."""
    long = TRAINER.model_copy(update={"epochs": 10})
    shapes = [LoRASpec(rank=4, alpha=8), LoRASpec(rank=2, alpha=8, targets=("q_proj", "v_proj"))]
    stages = [
        stage_of(
            folder,
            method,
            seed=number,
            lora=shapes[number % 2],
            trainer=long.model_copy(
                update={
                    "learning_rate": 1e-3 * (1 + number % 3),
                    "schedule": ("constant", "linear", "cosine")[number % 3],
                    "epochs": 4 if number == 1 else 10,
                }
            ),
        )
        for number, method in enumerate(METHODS.values())
    ]
    twin = stages[1].model_copy(update={"seed": 77})
    return [*stages, twin]


def test_a_pack_gives_the_adapters_of_separate_runs(tiny_folder):
    """After 30 steps: weights within 1e-3 of their norm, and every loss of every step within 1e-6
    of its size, which is 8 units in the last place. Lanes meet only in the frozen base's products,
    whose rows do not mix."""
    stages = mixed_pack(tiny_folder)
    together = trained(stages)
    assert sorted({lane.step for lane in together}) == [12, 30]
    for lane, stage in zip(together, stages, strict=True):
        (alone,) = trained([stage])
        assert distance(weights(lane), weights(alone)) < 1e-3, stage.method
        assert largest(lane, alone) < 1e-6, stage.method


def test_lanes_with_unequal_batches_share_a_pack(tiny_folder):
    """16 and 12 rows a step: groups of rows of different sizes in every product."""
    small = TRAINER.model_copy(update={"batch_size": 12})
    stages = [
        stage_of(tiny_folder, METHODS["cib"]),
        stage_of(tiny_folder, METHODS["cib"], trainer=small),
    ]
    for lane, stage in zip(trained(stages, micro=8), stages, strict=True):
        (alone,) = trained([stage], micro=8)
        assert distance(weights(lane), weights(alone)) < 1e-3
        assert largest(lane, alone) < 1e-5


# 5. Resume


@each_method
def test_a_restored_lane_goes_on_as_if_nothing_had_happened(name: str, tiny_folder):
    """Taken after 3 of 6 steps, in the middle of an epoch's end: all state, byte for byte.
    `test_resume.py` does the same with real kills."""
    stage = stage_of(tiny_folder, METHODS[name])
    adapters, (lane,) = open_lanes([stage])
    for _ in range(3):
        take_step(adapters, [lane], ALONE, 16)
    tensors, plain = copy.deepcopy(lane.state())
    train(adapters, [lane], ALONE, 16)
    adapters, (again,) = open_lanes([stage])
    again.restore(tensors, plain)
    train(adapters, [again], ALONE, 16)
    same_bytes(again.state()[0], lane.state()[0])
    assert again.state()[1] == lane.state()[1]


@each_method
def test_a_state_holds_every_buffer_and_every_moment(name: str, tiny_folder):
    adapters, (lane,) = open_lanes([stage_of(tiny_folder, METHODS[name])])
    take_step(adapters, [lane], ALONE, 16)
    tensors, plain = lane.state()
    for parameter in lane.parameters:
        names = {f"adamw.{parameter}.{part}" for part in ("step", "exp_avg", "exp_avg_sq")}
        assert names | {f"adapter.{parameter}"} <= tensors.keys()
    memory = {n.removeprefix("objective.") for n in tensors if n.startswith("objective.")}
    assert memory == set(lane.objective.state_dict())
    assert plain == {
        "step": 1,
        "gradient_seen": True,
        "history": lane.history,
        "failed": None,
    }


# 6. Reference cache


@each_method
def test_cached_references_equal_live_ones(name: str, tiny_folder):
    """The first steps give the same gradients and losses; float32 rounding of other batches."""
    stage = stage_of(tiny_folder, METHODS[name])
    if not works_live(METHODS[name]):
        with pytest.raises(ValueError, match="only known from cached references"):
            trained([stage], cached=False)
        return
    adapters, (cached,) = open_lanes([stage])
    live_adapters, (live,) = open_lanes([stage], cached=False)
    assert live.bank is None
    for _ in range(3):
        take_step(adapters, [cached], ALONE, 8)
        take_step(live_adapters, [live], ALONE, 8)
    assert distance(gradients(live), gradients(cached)) < 1e-4
    for lane in (live, cached):
        train(live_adapters if lane is live else adapters, [lane], ALONE, 8)
    assert distance(weights(live), weights(cached)) < 1e-3
    assert largest(live, cached) < 1e-5


# No nonsense is stored, and a lane's trouble is its own


def finished_lane(folder: Path) -> tuple[LaneAdapters, Lane]:
    adapters, (lane,) = open_lanes([stage_of(folder, PlainLoRA())])
    train(adapters, [lane], ALONE, 16)
    assert nonsense(lane) is None
    return adapters, lane


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_no_number_is_named(value: float, tiny_folder):
    _, lane = finished_lane(tiny_folder)
    name, parameter = list(lane.parameters.items())[-1]
    with torch.no_grad():
        parameter[0, 0] = value
    assert nonsense(lane) == f"{name} is not finite"


def test_missing_steps_are_named(tiny_folder):
    _, lane = finished_lane(tiny_folder)
    lane.step -= 1
    assert nonsense(lane) == "took 5 of 6 optimiser steps"


def test_a_gradient_that_never_came_is_named(tiny_folder):
    _, lane = finished_lane(tiny_folder)
    lane.gradient_seen = False
    assert nonsense(lane) == "no gradient ever reached the adapter"


def test_a_loss_that_is_no_number_is_named(tiny_folder):
    _, lane = finished_lane(tiny_folder)
    lane.history[2]["task"] = math.nan
    assert nonsense(lane) == "a loss in the history is not finite"


def test_an_adapter_that_nothing_reaches_sees_no_gradient(tiny_folder, monkeypatch):
    """A real way to get there: the adapter is switched off while it trains."""
    adapters, (lane,) = open_lanes([stage_of(tiny_folder, PlainLoRA())])
    with torch.no_grad():
        for parameter in adapters.model.get_decoder().norm.parameters():
            parameter.zero_()  # nothing below the final norm matters any more
    train(adapters, [lane], ALONE, 16)
    assert nonsense(lane) == "no gradient ever reached the adapter"


def sick_pack(folder: Path) -> list[StageSpec]:
    """Three lanes; the middle one has a learning rate that blows it up in its second step."""
    wild = TRAINER.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0})
    return [
        stage_of(folder, METHODS["cib"]),
        stage_of(folder, METHODS["cib"], trainer=wild),
        stage_of(folder, METHODS["lora"], seed=3),
    ]


def test_a_lane_that_breaks_does_not_disturb_the_others(tiny_folder):
    """They end as they do without it (as in any other pack), and the broken one says why."""
    stages = sick_pack(tiny_folder)
    adapters, lanes = open_lanes(stages)
    train(adapters, lanes, ALONE, 16)
    sick = lanes.pop(1)
    assert sick.failed
    assert "not finite at step" in sick.failed
    assert not sick.active
    for lane, other in zip(lanes, trained([stages[0], stages[2]]), strict=True):
        assert lane.failed is None
        assert lane.step == lane.stage.steps
        assert distance(weights(lane), weights(other)) < 1e-3
        assert largest(lane, other) < 1e-5


def test_only_the_healthy_lanes_of_a_pack_are_stored(tiny_folder, tmp_path):
    """The failure is returned by key; running again tries that stage alone, and says it again."""
    stages, store = sick_pack(tiny_folder), Store(tmp_path)
    pack = Pack(name="sick", jobs=tuple(Job(stage=stage, evals=()) for stage in stages))
    steps: list[int] = []
    for _ in range(2):
        failed = train_pack(
            pack, load(stages, CPU), store, ALONE, 16, 2, lambda lanes: steps.append(len(lanes))
        )
        assert list(failed) == [stages[1].key]
        assert "not finite at step" in failed[stages[1].key]
        healthy = {stages[0].key, stages[2].key}
        assert set(store.keys(STAGES)) == healthy
        assert store.keys("checkpoints") == []
    assert steps.count(3) == 6, "the first time, three lanes for six steps"
    assert set(steps) == {3, 1}, "the second time, the broken one alone"


def test_a_committed_stage_holds_its_adapter_its_history_and_its_provenance(tiny_folder, tmp_path):
    adapters, lane = finished_lane(tiny_folder)
    record = commit(lane, adapters, Store(tmp_path), ALONE)
    assert set(record.files) == {"adapter_model.safetensors", "adapter_config.json", HISTORY_FILE}
    assert StageSpec.model_validate(record.about["spec"]) == lane.stage
    assert (record.about["steps"], record.about["rows"], record.about["workers"]) == (6, 48, 1)
    assert record.about["versions"]["code"]
    assert record.about["last"]["step"] == 6


def test_a_stage_goes_on_from_its_parent(tiny_folder, tmp_path):
    """It begins where the parent ended, so better than the parent began; a missing parent is
    said."""
    parent = stage_of(tiny_folder, PlainLoRA())
    child = parent.model_copy(update={"parent": parent, "seed": 5})
    store = Store(tmp_path)

    def history(stage: StageSpec) -> list[dict[str, float]]:
        pack = Pack(name=f"pack-{stage.short}", jobs=(Job(stage=stage, evals=()),))
        assert not train_pack(pack, load([stage], CPU), store, ALONE, 16, 100)
        record = store.get(STAGES, stage.key)
        assert record
        return json.loads(record.path(HISTORY_FILE).read_text())

    with pytest.raises(RuntimeError, match=f"its parent {parent.short} is missing"):
        history(child)
    first, second = history(parent), history(child)
    assert second[0]["task"] < first[0]["task"] - 0.05
    assert store.keys(STAGES) == sorted([parent.key, child.key])


def test_clipping_is_by_a_lane_s_own_norm(tiny_folder):
    """The norm in the history is the one before clipping; the gradient's afterwards is at most
    max_grad_norm, whatever the other lane's is."""
    tight = TRAINER.model_copy(update={"max_grad_norm": 0.01})
    stages = [
        stage_of(tiny_folder, PlainLoRA(), trainer=tight),
        stage_of(tiny_folder, PlainLoRA(), seed=1),
    ]
    adapters, lanes = open_lanes(stages)
    take_step(adapters, lanes, ALONE, 16)
    first, second = (float(gradients(lane).norm()) for lane in lanes)
    assert lanes[0].history[0]["grad_norm"] > 0.1
    assert first == pytest.approx(0.01, rel=1e-3)
    assert second == pytest.approx(min(1.0, lanes[1].history[0]["grad_norm"]), rel=1e-3)
