"""The training step where weights lie on a GPU. There is none here: one without memory stands for
it (`fake_gpu.py`), on which tensors of two devices do not mix."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from menu import METHODS, TRAINED

from raycib.model_files import describe

CHILD = Path(__file__).parents[1] / "support" / "gpu_child.py"


@pytest.mark.sweep
@pytest.mark.skipif(
    bool(torch.version.cuda) or not shutil.which("g++"), reason="needs a CPU build of torch and g++"
)
def test_no_tensor_of_a_step_is_on_the_wrong_device(tmp_path: Path):
    """All methods as one group, on rows end to end, with layers computed twice. What is trained and
    what AdamW remembers stay in float32 beside a base in bfloat16, and attention has no mask. The
    host waits for the GPU as often a step, however many micro-batches it has: for LoRA twice, for
    the norms of gradients and the values of losses."""
    ended = subprocess.run(
        [sys.executable, CHILD, tmp_path], capture_output=True, text=True, env=os.environ
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["failed"] == []
    assert found["steps"] == {name: 3 * (name in TRAINED) for name in METHODS}
    assert found["held"] == ["torch.float32 on cuda:0"]
    assert found["attention"] == ["flash"]
    assert found["waits"][1] == found["waits"][2]
    assert found["waits of LoRA"] == {"cpu": 2}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_benchmark_for_a_gpu_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """On a tiny model, without a GPU: a line for each of 1 and 2 adapters, with CIB and without,
    padded and end to end. Without `--tiny` it says that there is none. What it measures there is
    made in bfloat16."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "bench")
    import bench_gpu

    monkeypatch.setattr("sys.argv", ["bench_gpu.py", "--tiny", "--rounds", "1"])
    bench_gpu.main()
    conditions, *_, head = (told := capsys.readouterr().out.splitlines())[:-8]
    lines = told[-8:]
    assert head.startswith("method")
    assert conditions.startswith(f"CPU, torch {torch.__version__}")
    assert [line.split()[:3] for line in lines] == [
        [kind, many, rows]
        for many in "12"
        for kind in ("lora", "cib")
        for rows in ("padded", "end")
    ]
    assert [line.split()[-3] for line in lines if "end to end" in line] == ["1.00"] * 4
    made = bench_gpu.Eight(64, 1, 1, 4, 8, vocabulary=50).make(tmp_path)
    assert describe(str(made)).dtype == "bfloat16"
    monkeypatch.setattr("sys.argv", ["bench_gpu.py"])
    bench_gpu.main()
    assert capsys.readouterr().out.startswith("no GPU here: nothing is measured")
