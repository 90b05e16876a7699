"""A base in shards over two workers: a model of which all weights are trained equals the one of one
worker, also when it is killed; and what a worker holds is what the plan says. That every method's
adapters are equal is in `tests/methods/test_invariances.py`."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny
import torch
from safetensors.torch import load_file
from session import Ask

from raycib.config import ModelSpec, StageSpec, TrainerSpec
from raycib.config.plan import AdapterGroup, Job
from raycib.costs.memory import Shards, trained_bytes, weight_bytes
from raycib.costs.sizes import sizes_of
from raycib.model_files import describe, find
from raycib.store import Store
from raycib.store.kinds import CHECKPOINTS, STAGES

WEIGHTS = "model.safetensors"
KILLED = 9
TRAINER = TrainerSpec(learning_rate=5e-3, batch_size=16, warmup_steps=2, epochs=2)
ROUNDING = {"float32": 1e-3, "bfloat16": 0.05}
"""Of what training changes, how far apart the same training is in another order."""


def whole_stage(folder: Path, **overrides: Any) -> StageSpec:
    """33 rows in batches of 16, twice: 6 steps, of which two have a single row, so that a worker
    has none."""
    return tiny.make_stage(folder, 33, **{"lora": None, "trainer": TRAINER, **overrides})


def ask_of(stage: StageSpec, store: Path, strategy: str) -> dict[str, Any]:
    """Two workers, 4 rows at a time: the last batches differ in micro-batches."""
    group = AdapterGroup(name="group", jobs=(Job(stage=stage, evals=()),))
    return {
        "how": "together", "strategy": strategy, "group": group.model_dump(mode="json"),
        "store": str(store), "every": 2, "log": str(store / "log"), "micro": 4,
    }  # fmt: skip


class Sharded(NamedTuple):
    """A model that was trained in shards, undisturbed."""

    stage: StageSpec
    store: Store
    strategy: str


SHARDED = [(one, precision) for one in ("fsdp2", "zero3") for precision in ROUNDING]


@pytest.fixture(scope="module", params=SHARDED, ids="-".join)
def sharded(
    request: pytest.FixtureRequest,
    tiny_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    ask_trainer: Ask,
) -> Sharded:
    strategy, precision = request.param
    trainer = TRAINER.model_copy(update={"precision": precision})
    stage, root = whole_stage(tiny_folder, trainer=trainer), tmp_path_factory.mktemp("sharded")
    assert ask_trainer(**ask_of(stage, root, strategy))["statuses"] == [0, 0]
    return Sharded(stage, Store(root), strategy)


def files_of(stage: StageSpec, store: Store) -> Any:
    record = store.get(STAGES, stage.key)
    assert record
    return record.files


def test_a_whole_model_in_shards_is_that_of_one_worker(sharded: Sharded, tmp_path: Path):
    """Sums in another order: weights within 1e-3 of the size of what training changed, or what
    rounding to 8 bits makes of that. It is an ordinary folder, with the same tensors."""
    stage, store, _ = sharded
    alone = Store(tmp_path)
    tiny.train_chain((stage,), alone)
    start = load_file(find(stage.model.source) / WEIGHTS)
    one, two = (
        load_file(record.folder / WEIGHTS)
        for record in (alone.get(STAGES, stage.key), store.get(STAGES, stage.key))
        if record
    )
    assert one.keys() == two.keys() == start.keys()
    apart, moved = (
        sum(float((a[name] - b[name]).norm() ** 2) for name in a) ** 0.5
        for a, b in ((one, two), (one, start))
    )
    assert apart < ROUNDING[stage.trainer.precision] * moved
    names = {file.name for file in tmp_path.glob(f"stages/{stage.key}/*")}
    assert names == {file.name for file in (Path(store.root) / "stages" / stage.key).glob("*")}


def test_killed_and_resumed_in_shards_is_undisturbed(
    sharded: Sharded, tmp_path: Path, ask_trainer: Ask
):
    """The second worker is killed after its fifth step of six; each has its part of the fourth."""
    stage, undisturbed, strategy = sharded
    ask = ask_of(stage, tmp_path, strategy)
    ended = ask_trainer(**ask, killed_at=5)["statuses"]
    assert ended[1] == KILLED and ended[0] != 0
    store = Store(tmp_path)
    saved = sorted(store.keys(CHECKPOINTS))
    assert [one[: len("group-00000004-0of2")] for one in saved] == [
        f"group-00000004-{rank}of2" for rank in (0, 1)
    ]
    (tmp_path / "meeting").unlink()
    (tmp_path / "log").unlink()
    assert ask_trainer(**ask)["statuses"] == [0, 0]
    steps = {int(line.split()[1]) for line in (tmp_path / "log").read_text().splitlines()}
    assert steps == {5, 6}
    assert files_of(stage, store) == files_of(stage, undisturbed)
    assert store.keys(CHECKPOINTS) == []


def test_a_model_that_is_done_is_read_into_its_parts(sharded: Sharded, ask_trainer: Ask):
    """As after a kill between the last write and the report: nothing is trained again, and the
    workers' parts are the stored weights."""
    stage, store, strategy = sharded
    root = Path(store.root)
    (root / "meeting").unlink()
    (root / "log").unlink()
    assert ask_trainer(**ask_of(stage, root, strategy))["statuses"] == [0, 0]
    assert not (root / "log").read_text()
    stored = load_file(root / "stages" / stage.key / WEIGHTS)
    parts = [load_file(root / f"worker-{rank}-{stage.key}") for rank in (0, 1)]
    for name, whole in stored.items():
        found = torch.cat([part[name].flatten() for part in parts])[: whole.numel()]
        assert (found.view_as(whole).to(whole.dtype) == whole).all(), name


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """Wide enough that its weights are nearly all that a process holds: 8 MB."""
    return describe(str(tiny.make_model(tmp_path_factory.mktemp("wide"), hidden=320)))


@pytest.mark.parametrize("strategy", ["replicated", "fsdp2"])
def test_a_worker_holds_of_a_frozen_base_what_the_plan_says(
    strategy: str, model: ModelSpec, tiny_folder: Path, tmp_path: Path, ask_trainer: Ask
):
    """Counted while a layer is whole: its own half of each layer, all of the embeddings, and that
    layer twice. Beside it are a pass of one token and adapters of rank 1."""
    lora = tiny.LoRASpec(rank=1, alpha=1, targets=("q_proj",))
    stage = tiny.make_stage(tiny_folder, 16, model=model, lora=lora)
    assert ask_trainer(**ask_of(stage, tmp_path, strategy))["statuses"] == [0, 0]
    sizes = sizes_of(model.source)
    planned = (
        weight_bytes(sizes, "float32")
        if strategy == "replicated"
        else sum(Shards.of(sizes, 2).frozen("float32"))
    )
    for rank in (0, 1):
        held = int((tmp_path / f"held-{rank}").read_text())
        assert held == pytest.approx(planned, rel=0.02)


@pytest.mark.parametrize(
    ("strategy", "precision"), [*SHARDED, ("replicated", "float32"), ("replicated", "bfloat16")]
)
def test_a_worker_holds_of_a_model_that_it_trains_what_the_plan_says(
    strategy: str,
    precision: str,
    model: ModelSpec,
    tmp_path: Path,
    tiny_folder: Path,
    ask_trainer: Ask,
):
    """Weights, gradients and Adam's means, counted after a step; and at most what the plan says
    with what is gathered, in a pass before the first step."""
    trainer = TRAINER.model_copy(update={"precision": precision})
    stage = whole_stage(tiny_folder, model=model, trainer=trainer)
    assert ask_trainer(**ask_of(stage, tmp_path, strategy))["statuses"] == [0, 0]
    sizes = sizes_of(model.source)
    own, gathered = trained_bytes(sizes, precision), 0
    if strategy != "replicated":
        own, gathered = Shards.of(sizes, 2).trained(precision, strategy == "zero3")
    for rank in (0, 1):
        stepped, held = (int((tmp_path / f"{n}-{rank}").read_text()) for n in ("stepped", "held"))
        if strategy == "zero3":  # it keeps what is outside of layers, and a buffer to reduce in
            assert own < stepped < own + gathered
        else:
            assert stepped == pytest.approx(own, rel=0.02)
        assert held < own + gathered
