"""A base in shards over two workers of Ray Train, as a sweep has it."""

import json
import sys
from pathlib import Path

import pytest
import running
import tiny
from safetensors.torch import load_file

from raycib.config.plan import AdapterGroup, Job
from raycib.store import Store
from raycib.store.kinds import MEASURES, STAGES

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
PROGRAM = Path(running.__file__).with_name("ray_child.py")


def test_two_workers_of_ray_train_give_the_adapter_and_the_model_of_one(tmp_path: Path):
    """One after the other in the same two processes: a model of which all weights are trained, and
    an adapter, which the first worker then measures alone with what the other has of the base."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    whole = tiny.make_stage(folder, 33, lora=None)
    lora = tiny.make_stage(folder, 33)
    evals = (tiny.make_evals(folder),)
    groups = [
        AdapterGroup(name="whole", jobs=(Job(stage=whole, evals=()),)),
        AdapterGroup(name="lora", jobs=(Job(stage=lora, evals=evals),)),
    ]
    asked = tmp_path / "groups.json"
    asked.write_text(json.dumps([group.model_dump(mode="json") for group in groups]))
    with running.ray_folder() as temp:
        program = running.Running(
            [sys.executable, str(PROGRAM), str(asked), str(tmp_path / "two"), "fsdp2"],
            temp,
            tmp_path / "log",
        )
        try:
            ended = program.wait()
        finally:
            program.clean()
    assert ended.code == 0, ended.err[-2000:]
    two, one = Store(tmp_path / "two"), Store(tmp_path / "one")
    tiny.train_chain((whole, lora), one)
    for stage, file in ((whole, "model.safetensors"), (lora, "adapter_model.safetensors")):
        found, expected = (
            load_file(record.folder / file)
            for record in (two.get(STAGES, stage.key), one.get(STAGES, stage.key))
            if record
        )
        assert found.keys() == expected.keys()
        # AdamW moves a weight by 5e-3 a step; rounding, and a weight without gradient, by less.
        assert max(float((found[n] - expected[n]).abs().max()) for n in found) < 1e-3
    assert two.get(MEASURES, evals[0].measures_key(lora.key))
