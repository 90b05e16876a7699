"""Killed equals undisturbed: SIGKILL at any moment, and the adapters are the same bytes.

``RAYCIB_NIGHTLY=3`` kills 60 times at random instead of 20.
"""

import os
import random
import shutil
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
from menu import METHODS
from session import NIGHTLY, Ask

from raycib.config import StageSpec, TrainerSpec
from raycib.config.plan import AdapterGroup, Job
from raycib.store import Record, Store
from raycib.store.kinds import CHECKPOINTS, STAGES

KILLS = 20 * NIGHTLY
EVERY = 3
"""Optimiser steps from one checkpoint to the next."""


def stages_of(folder: Path, epochs: int) -> list[StageSpec]:
    """CIB, whose queue must survive; CIB with another queue, for one epoch less; plain LoRA with
    a schedule; an average that goes along with the weights; safety rows of its own, and surgery.
    3 steps an epoch."""
    trainer = TrainerSpec(learning_rate=5e-3, batch_size=16, warmup_steps=2, epochs=epochs)
    shorter = trainer.model_copy(update={"epochs": epochs - 1})
    cosine = trainer.model_copy(update={"schedule": "cosine", "weight_decay": 0.01})
    return [
        tiny.make_stage(folder, method=METHODS["cib"], trainer=trainer),
        tiny.make_stage(folder, method=METHODS["cib, recent and current"], trainer=shorter),
        tiny.make_stage(folder, method=METHODS["lora"], trainer=cosine, seed=1),
        tiny.make_stage(folder, method=METHODS["ema"], trainer=trainer),
        *tiny.make_chain(folder, METHODS["safegrad"], trainer=trainer),
    ]


def request(stages: list[StageSpec], folder: Path, every: int = EVERY) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    group = AdapterGroup(
        name="pack-killed", jobs=tuple(Job(stage=stage, evals=()) for stage in stages)
    )
    return {
        "group": group.model_dump(mode="json"),
        "store": str(folder / "store"),
        "log": str(folder / "log"),
        "every": every,
    }


def adapters(store: Path, stages: list[StageSpec]) -> list[dict[str, str]]:
    """sha256 of every file of every stage."""
    found = [Store(store).get(STAGES, stage.key) for stage in stages]
    assert all(found), f"{sum(one is None for one in found)} of {len(found)} stages are missing"
    return [one.files for one in found if isinstance(one, Record)]


def finished(store: Path, stages: list[StageSpec]) -> bool:
    keys = Store(store).keys(STAGES)
    return all(stage.key in keys for stage in stages)


def steps_redone(log: Path) -> list[int]:
    """For each restart, how many steps it took again."""
    steps = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    return [
        before + 1 - after
        for (one, before), (other, after) in pairwise(steps)
        if one != other  # another process
    ]


@pytest.fixture(scope="module")
def stages(tiny_folder: Path) -> list[StageSpec]:
    return stages_of(tiny_folder, epochs=4)


@pytest.fixture(scope="module")
def undisturbed(stages, ask_trainer: Ask, tmp_path_factory) -> tuple[list[dict[str, str]], float]:
    """What the stages are when nothing happens, and how long it takes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ask_trainer(how="once", **request(stages, folder / "warm-up"))
    answer = ask_trainer(how="once", **request(stages, folder))
    assert answer["status"] == 0
    return adapters(folder / "store", stages), answer["seconds"]


def test_two_undisturbed_runs_give_the_same_bytes(stages, undisturbed, ask_trainer, tmp_path):
    """Else a difference after a kill would mean nothing."""
    assert ask_trainer(how="once", **request(stages, tmp_path))["status"] == 0
    assert adapters(tmp_path / "store", stages) == undisturbed[0]
    assert Store(tmp_path / "store").keys(CHECKPOINTS) == []


def test_kills_at_random_moments_change_no_byte(stages, undisturbed, ask_trainer, tmp_path):
    """A group is killed and restarted until it is done, then the next, until KILLS kills hit."""
    expected, seconds = undisturbed
    seed = int.from_bytes(os.urandom(4))
    print(f"moments drawn from seed {seed}")  # pytest shows it when the test fails
    draw = random.Random(seed)
    kills, redone, groups = 0, [], 0
    while kills < KILLS:
        folder = tmp_path / str(groups)
        ask = request(stages, folder)
        while not finished(folder / "store", stages):
            moment = draw.uniform(0.1, 0.8) * seconds
            status = ask_trainer(how="killed_after", seconds=moment, **ask)["status"]
            assert status in (0, signal.SIGKILL)
            kills += status == signal.SIGKILL
        assert ask_trainer(how="once", **ask)["status"] == 0
        assert adapters(folder / "store", stages) == expected
        assert Store(folder / "store").keys(CHECKPOINTS) == []
        redone += steps_redone(folder / "log")
        shutil.rmtree(folder)
        groups += 1
    print(f"{kills} kills in {groups} groups; steps redone after each: {redone}")
    assert all(0 <= steps <= EVERY for steps in redone)


def test_a_machine_that_is_to_go_writes_a_checkpoint_and_no_step_is_lost(
    stages, undisturbed, ask_trainer, tmp_path
):
    ask = request(stages, tmp_path)
    for step in (2, 3, 7):
        assert ask_trainer(how="once", noticed_at=step, **ask)["status"] != 0
        assert Store(ask["store"]).keys(CHECKPOINTS) == [f"pack-killed-{step:08d}"]
    assert ask_trainer(how="once", **ask)["status"] == 0
    assert adapters(tmp_path / "store", stages) == undisturbed[0]
    assert steps_redone(tmp_path / "log") == [0, 0, 0]


def test_where_one_machine_is_to_go_all_workers_of_a_group_stop_at_the_same_step(
    tiny_folder, ask_trainer, tmp_path
):
    trainer = TrainerSpec(learning_rate=5e-3, batch_size=16, warmup_steps=0)
    alone = [tiny.make_stage(tiny_folder, 64, method=METHODS["cib"], trainer=trainer)]
    whole, ask = request(alone, tmp_path / "whole"), request(alone, tmp_path)
    assert ask_trainer(how="together", **whole)["statuses"] == [0, 0]
    statuses = ask_trainer(how="together", noticed_at=2, **ask)["statuses"]
    assert statuses[0] == statuses[1] != 0
    assert Store(ask["store"]).keys(CHECKPOINTS) == ["pack-killed-00000002"]
    (tmp_path / "store" / "meeting").unlink()
    assert ask_trainer(how="together", **ask)["statuses"] == [0, 0]
    assert adapters(tmp_path / "store", alone) == adapters(tmp_path / "whole" / "store", alone)


def test_kills_at_every_file_boundary_change_no_byte(tiny_folder, ask_trainer, tmp_path):
    """Before each fsync and each rename of the last checkpoint and of the commits: two slots, two
    steps, a checkpoint a step. Every third boundary; all of them nightly."""
    trainer = TrainerSpec(learning_rate=5e-3, batch_size=16, warmup_steps=0)
    pair = [
        tiny.make_stage(tiny_folder, 32, method=METHODS[name], trainer=trainer)
        for name in ("cib, hardest at the last prompt token", "lora")
    ]
    whole = ask_trainer(how="killed_at", call=10**6, **request(pair, tmp_path / "all", every=1))
    assert whole["status"] == 0
    expected = adapters(tmp_path / "all" / "store", pair)
    stride = 3 if NIGHTLY == 1 else 1
    for call in range(0, whole["calls"], stride):
        ask = request(pair, tmp_path / str(call), every=1)
        hit = ask_trainer(how="killed_at", call=call, **ask)
        assert (hit["status"], hit["calls"]) == (signal.SIGKILL, call)
        assert ask_trainer(how="once", **ask)["status"] == 0
        assert adapters(tmp_path / str(call) / "store", pair) == expected, f"killed at {call}"
        assert all(0 <= steps <= 1 for steps in steps_redone(tmp_path / str(call) / "log"))
        shutil.rmtree(tmp_path / str(call))


def test_kills_of_a_group_that_builds_on_others_change_no_byte(tiny_folder, ask_trainer, tmp_path):
    """A derived slot, which takes no step, a slot on top of a frozen one, and one with fixed
    directions and a start of its own: what is not in a checkpoint is made again the same."""
    names = ("safe lora", "o lora", "salora")
    chains = [tiny.make_chain(tiny_folder, METHODS[name]) for name in names]
    group = [chain[-1] for chain in chains]
    found = []
    for killed in (False, True):
        folder = tmp_path / str(killed)
        ask = request(group, folder, every=1)
        for chain in chains:
            tiny.train_chain(chain[:-1], Store(folder / "store"))
        if killed:
            kill_after_a_checkpoint(ask, ask_trainer)
        assert ask_trainer(how="once", **ask)["status"] == 0
        found.append(adapters(folder / "store", group))
    assert found[0] == found[1]


def kill_after_a_checkpoint(ask: dict[str, Any], ask_trainer: Ask) -> str:
    """Kill at some file boundary after the first checkpoint, whose name is returned."""
    store = Store(ask["store"])
    for call in range(10, 80, 5):
        ask_trainer(how="killed_at", call=call, **ask)
        if names := store.keys(CHECKPOINTS):
            return names[-1]
    pytest.fail("no kill left a checkpoint to go on from")


def test_a_damaged_checkpoint_costs_time_and_no_byte(stages, undisturbed, ask_trainer, tmp_path):
    """One bit of it flips: it is moved aside and the group starts again."""
    ask = request(stages, tmp_path)
    name = kill_after_a_checkpoint(ask, ask_trainer)
    file = next((tmp_path / "store" / CHECKPOINTS / name).glob("*.safetensors"))
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    assert ask_trainer(how="once", **ask)["status"] == 0
    assert adapters(tmp_path / "store", stages) == undisturbed[0]
