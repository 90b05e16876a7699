"""A base in shards: what each of two workers holds of it, against what the plan says. That adapters
are equal, of every method, is in `tests/methods/test_invariances.py`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from raycib.config import ModelSpec
from raycib.config.plan import AdapterGroup, Job
from raycib.costs.memory import shard_bytes, weight_bytes
from raycib.costs.sizes import sizes_of
from raycib.model_files import describe
from raycib.store import Store

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """Wide enough that its weights are nearly all that a process holds: 5 MB."""
    return describe(str(tiny.make_model(tmp_path_factory.mktemp("wide"), hidden=320)))


@pytest.mark.parametrize("strategy", ["replicated", "fsdp2"])
def test_a_worker_holds_what_the_plan_says(
    strategy: str, model: ModelSpec, tiny_folder: Path, tmp_path: Path, ask_trainer: Ask
):
    """Counted while a layer is whole: its own half of each layer, all of the embeddings, and that
    layer twice. Beside it are a pass of one token and adapters of rank 1."""
    lora = tiny.LoRASpec(rank=1, alpha=1, targets=("q_proj",))
    stage = tiny.make_stage(tiny_folder, 16, model=model, lora=lora)
    group = AdapterGroup(name="held", jobs=(Job(stage=stage, evals=()),))
    ask = {"group": group.model_dump(mode="json"), "store": str(tmp_path), "every": 100}
    told = ask_trainer(how="together", strategy=strategy, log=str(tmp_path / "log"), **ask)
    assert told["statuses"] == [0, 0]
    assert Store(tmp_path).get("stages", stage.key)
    sizes = sizes_of(model.source)
    planned = (
        weight_bytes(sizes, "float32")
        if strategy == "replicated"
        else sum(shard_bytes(sizes, "float32", 2))
    )
    for rank in (0, 1):
        held = int((tmp_path / f"held-{rank}").read_text())
        assert held == pytest.approx(planned, rel=0.02)
