"""Adapters in the middle of their training: what they are, and that nothing else changes."""

from pathlib import Path

import pytest
import tiny
import torch
from menu import METHODS
from safetensors.torch import load_file

from raycib.config import RunSpec, StageSpec, TrainerSpec
from raycib.config.plan import AdapterGroup, Job, make_plan
from raycib.store import Store
from raycib.store.kinds import CHECKPOINTS, POINTS, STAGES
from raycib.training.group import load, train_group
from raycib.training.points import ADAPTER_FILE
from raycib.training.workers import Workers

TRAINER = TrainerSpec(learning_rate=5e-3, batch_size=16, warmup_steps=2, epochs=2)
"""Six steps."""


def trained(
    stages: list[StageSpec], store: Store, steps: tuple[int, ...] = (), every: int = 1000
) -> dict[str, str]:
    """The stages in one group, with points at `steps`; why some failed."""
    jobs = tuple(
        Job(stage=one, evals=(), points={step: one.point_key(step) for step in steps})
        for one in stages
    )
    group = AdapterGroup(name="pack-points", jobs=jobs)
    loaded = load(stages, torch.device("cpu"))
    return train_group(group, loaded, store, Workers(), 16, checkpoint_every=every)


def files(store: Store, kind: str, key: str) -> dict[str, str]:
    record = store.get(kind, key)
    assert record
    return {name: sha for name, sha in record.files.items() if name == ADAPTER_FILE}


@pytest.mark.parametrize("name", ["lora", "ema", "cib", "case2 ball", "safegrad"])
def test_a_point_is_the_adapter_of_a_training_that_ends_there(
    name: str, tiny_folder: Path, tmp_path: Path
) -> None:
    """To the last byte; an average has taken the weights' place in it, as at the end."""
    [*_, whole] = tiny.make_chain(tiny_folder, METHODS[name], trainer=TRAINER)
    short = whole.model_copy(update={"trainer": TRAINER.model_copy(update={"epochs": 1})})
    assert whole.steps == 2 * short.steps
    store, without = Store(tmp_path / "with"), Store(tmp_path / "without")
    trained([whole], store, (short.steps,))
    trained([whole], without)
    trained([short], without)
    point = files(store, POINTS, whole.point_key(short.steps))
    assert point == files(without, STAGES, short.key)
    assert files(store, STAGES, whole.key) == files(without, STAGES, whole.key) != point


def test_points_of_a_stage_that_is_there_are_of_the_same_training(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """It is trained once more; what is stored stays, and what it ended with is told."""
    stages = [tiny.make_stage(tiny_folder, trainer=TRAINER, seed=seed) for seed in range(2)]
    once, later = Store(tmp_path / "once"), Store(tmp_path / "later")
    trained(stages, once, (2, 4))
    trained(stages, later)
    before = [files(later, STAGES, stage.key) for stage in stages]
    trained(stages, later, (2, 4))
    assert [files(later, STAGES, stage.key) for stage in stages] == before
    for stage in stages:
        for step in (2, 4):
            key = stage.point_key(step)
            assert files(later, POINTS, key) == files(once, POINTS, key)
        told = later.get(POINTS, stage.point_key(stage.steps))
        assert told and told.about["ends_as_stored"] is True
        assert once.get(POINTS, stage.point_key(stage.steps)) is None


def test_another_end_is_told(tiny_folder: Path, tmp_path: Path) -> None:
    """As if the stored adapter were of a group that rounds otherwise."""
    stage = tiny.make_stage(tiny_folder, trainer=TRAINER)
    other = tiny.make_stage(tiny_folder, trainer=TRAINER, seed=1)
    first, store = Store(tmp_path / "first"), Store(tmp_path / "store")
    trained([other], first)
    record = first.get(STAGES, other.key)
    assert record
    (tmp_path / "copy").mkdir()

    def write(folder: Path) -> None:
        for name in record.files:
            (folder / name).write_bytes(record.path(name).read_bytes())

    store.put(STAGES, stage.key, write, record.about)
    trained([stage], store, (2,))
    told = store.get(POINTS, stage.point_key(stage.steps))
    assert told and told.about["ends_as_stored"] is False


def test_a_checkpoint_behind_a_missing_point_is_not_gone_on_from(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Of a training that was stopped before anybody asked for points; with its points it is."""
    stage = tiny.make_stage(tiny_folder, trainer=TRAINER)
    reference, store = Store(tmp_path / "reference"), Store(tmp_path / "store")
    trained([stage], reference, (2, 4))
    for steps in ((), (2, 4)):  # the second time the first point is there, the second is not
        stopped(stage, store, steps, at=3)
        assert store.keys(CHECKPOINTS)
    trained([stage], store, (2, 4), every=1)
    for step in (2, 4):
        key = stage.point_key(step)
        assert files(store, POINTS, key) == files(reference, POINTS, key)
    assert files(store, STAGES, stage.key) == files(reference, STAGES, stage.key)


def stopped(stage: StageSpec, store: Store, steps: tuple[int, ...], at: int) -> None:
    points = {step: stage.point_key(step) for step in steps}
    group = AdapterGroup(name="pack-points", jobs=(Job(stage=stage, evals=(), points=points),))

    def progress(slots: list) -> None:
        if slots[0].step > at:
            raise KeyboardInterrupt

    loaded = load([stage], torch.device("cpu"))
    with pytest.raises(KeyboardInterrupt):
        train_group(group, loaded, store, Workers(), 16, 1, progress)  # type: ignore[arg-type]


def test_a_point_moves_like_an_adapter(tiny_folder: Path, tmp_path: Path) -> None:
    """It opens as PEFT's, and is neither the start nor the end."""
    stage = tiny.make_stage(tiny_folder, trainer=TRAINER)
    store = Store(tmp_path)
    trained([stage], store, (2,))
    record = store.get(POINTS, stage.point_key(2))
    assert record and record.about == {"stage": stage.key, "step": 2}
    found, end = load_file(record.path(ADAPTER_FILE)), tiny.adapter_of(store, stage)
    assert found.keys() == end.keys()
    assert any(one.any() for name, one in found.items() if "lora_B" in name)
    assert not all(torch.equal(found[name], end[name]) for name in end)


def test_points_change_no_key_and_are_work_until_they_are_kept(tiny_folder: Path) -> None:
    stage, evals = tiny.make_stage(tiny_folder, trainer=TRAINER), tiny.make_evals(tiny_folder)
    plain = RunSpec(stages=(stage,), evals=evals)
    run = plain.model_copy(update={"hrr_every": 2})
    assert (run.key, run.final.key, run.evals.key) == (plain.key, stage.key, evals.key)
    assert list(run.points) == [2, 4]  # the sixth is the end
    assert plain.points == {}
    kept: set[str] = set()

    def jobs() -> list[Job]:
        plan = make_plan([run], lambda _: True, lambda *_: True, 1, kept=kept.__contains__)
        return [job for level in plan.levels for group in level for job in group.jobs]

    assert [job.points for job in jobs()] == [run.points]
    kept |= set(run.points.values())
    assert jobs() == []
    some = evals.harmful.model_copy(update={"rows": "f" * 64})
    looked = evals.model_copy(update={"looks": some})
    assert evals.at_points().asked == (evals.harmful,)
    assert looked.at_points().asked == looked.at_points().judged == (some,)
    assert looked.asked == (*evals.asked, some)  # the end, too, is asked them
