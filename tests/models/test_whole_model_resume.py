"""A stage that trains all weights, killed and started again."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from session import Ask
from transformers import AutoModelForCausalLM
from whole_models import (
    ALONE,
    CPU,
    TRAINER,
    WEIGHTS,
    copy_of,
    distance,
    group_of,
    logits,
    trained,
    whole_stage,
)

from raycib.config import StageSpec
from raycib.model_files import find
from raycib.store import Store
from raycib.store.kinds import CHECKPOINTS
from raycib.training.group import STAGES, load, train_group
from raycib.training.slot import Slot


class Killed(Exception):
    """Stands for SIGKILL: nothing of the process goes on."""


def killed_at(step: int) -> Callable[[Sequence[Slot]], None]:
    def progress(slots: Sequence[Slot]) -> None:
        if slots[0].step == step:
            raise Killed

    return progress


def test_killed_and_resumed_is_undisturbed(made, tiny_folder: Path, tmp_path: Path):
    """Killed after step 5, saved at step 4: the same files as in one go. What a checkpoint holds
    is read back by another process's fresh model."""
    stage, undisturbed = made
    own, group = Store(tmp_path), group_of(stage)
    with pytest.raises(Killed):
        train_group(group, load([stage], CPU), own, ALONE, 16, 2, killed_at(5))
    assert own.keys(CHECKPOINTS) == ["group-00000004"]
    assert own.get(STAGES, stage.key) is None
    seen: list[int] = []
    progress = lambda slots: seen.append(slots[0].step)  # noqa: E731
    assert train_group(group, load([stage], CPU), own, ALONE, 16, 2, progress) == {}
    assert seen == [5, 6]
    one, other = own.get(STAGES, stage.key), undisturbed.get(STAGES, stage.key)
    assert one
    assert other
    assert one.files == other.files
    assert own.keys(CHECKPOINTS) == []


@pytest.mark.parametrize("call", [2, 7, 14, 21])
def test_a_real_kill_while_files_are_written_changes_nothing(
    call: int, made, tmp_path: Path, ask_trainer: Ask
):
    """SIGKILL before the call-th fsync or rename of some thirty, once more at the second one after
    starting again, then undisturbed."""
    stage, undisturbed = made
    group = group_of(stage).model_dump(mode="json")
    ask = {"group": group, "store": str(tmp_path), "every": 2, "log": str(tmp_path / "log")}
    for number in (call, 1):
        assert ask_trainer(how="killed_at", call=number, **ask)["status"] == 9
    assert ask_trainer(how="once", **ask)["status"] == 0
    one, other = Store(tmp_path).get(STAGES, stage.key), undisturbed.get(STAGES, stage.key)
    assert one
    assert other
    assert one.files == other.files


def test_two_workers_make_the_model_of_one(made, tmp_path: Path, ask_trainer: Ask):
    """Two real processes joined by gloo, each with half the rows: sums in another order, so weights
    within 1e-3 of the size of what training changed; both workers end with the same bytes."""
    stage, store = made
    group = group_of(stage).model_dump(mode="json")
    ask = {"group": group, "store": str(tmp_path), "every": 2, "log": str(tmp_path / "log")}
    assert ask_trainer(how="together", micro=4, **ask)["statuses"] == [0, 0]
    first, second = (tmp_path / f"worker-{rank}-{stage.key}" for rank in (0, 1))
    assert first.read_bytes() == second.read_bytes()
    start = load_file(find(stage.model.source) / WEIGHTS)
    one, two = (
        {name: value - start[name] for name, value in load_file(folder / WEIGHTS).items()}
        for folder in (trained(stage, store), trained(stage, Store(tmp_path)))
    )
    assert distance(two, one) < 1e-3


def test_a_group_that_was_done_is_not_done_again(made, tmp_path: Path):
    """As after a kill between the last write and the report: the stored model is found, and is what
    the group then has in memory."""
    stage, store = copy_of(made, tmp_path)
    seen: list[int] = []
    loaded = load([stage], CPU)
    failed = train_group(group_of(stage), loaded, store, ALONE, 16, 2, lambda _: seen.append(1))
    assert (failed, seen) == ({}, [])
    stored = AutoModelForCausalLM.from_pretrained(trained(stage, store))
    assert torch.equal(logits(loaded.adapters.model), logits(stored))


def test_a_model_that_stops_being_finite_is_not_stored(tiny_folder: Path, tmp_path: Path):
    """Steps of 1e30 overflow at once."""
    wild = TRAINER.model_copy(update={"learning_rate": 1e30})
    stage, own = whole_stage(tiny_folder, trainer=wild), Store(tmp_path)
    failed = train_group(group_of(stage), load([stage], CPU), own, ALONE, 16, 1000)
    assert "not finite" in failed[stage.key]
    assert own.get(STAGES, stage.key) is None


def test_the_history_of_a_made_model_is_kept(made):
    stage, store = made
    record = store.get(STAGES, stage.key)
    assert record
    history = json.loads(record.path("history.json").read_text())
    assert [entry["step"] for entry in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["task"] < history[0]["task"]
    assert StageSpec.model_validate(record.about["spec"]) == stage
