"""Stages that train all weights of the tiny model, and what its logits are."""

from pathlib import Path

import plain
import tiny
import torch
from torch import Tensor

from raycib.config import StageSpec, TrainerSpec
from raycib.config.plan import AdapterGroup, Job
from raycib.store import Store
from raycib.training.group import STAGES
from raycib.training.workers import Workers

CPU = torch.device("cpu")
ALONE = Workers()
TRAINER = TrainerSpec(
    learning_rate=1e-3, batch_size=10, warmup_steps=2, epochs=2, max_grad_norm=0.5, weight_decay=0.1
)
WEIGHTS = "model.safetensors"


def whole_stage(folder: Path, **overrides: object) -> StageSpec:
    """25 rows in batches of 10, twice: 6 steps."""
    return tiny.make_stage(folder, 25, **{"lora": None, "trainer": TRAINER, **overrides})


def group_of(*stages: StageSpec) -> AdapterGroup:
    return AdapterGroup(name="group", jobs=tuple(Job(stage=stage, evals=()) for stage in stages))


def trained(stage: StageSpec, store: Store) -> Path:
    """The stage's folder in the store."""
    tiny.train_chain((stage,), store)
    record = store.get(STAGES, stage.key)
    assert record
    return record.folder


def ids() -> Tensor:
    return torch.arange(36).reshape(3, 12) + 3


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids()).logits


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    a, b = (plain.flat({name: t[name] for name in sorted(t)}).double() for t in (one, other))
    return float((a - b).norm() / b.norm())


def copy_of(made: tuple[StageSpec, Store], root: Path) -> tuple[StageSpec, Store]:
    """The same model in a store that may be damaged."""
    stage, store = made
    record, own = store.get(STAGES, stage.key), Store(root)
    assert record

    def write(folder: Path) -> None:
        for name in record.files:
            (folder / name).write_bytes(record.path(name).read_bytes())

    own.put(STAGES, stage.key, write, record.about)
    return stage, own
