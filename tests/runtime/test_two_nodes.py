"""A sweep submitted as a job to a cluster of two nodes, with a worker on each."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
from ray_head import Cluster, head, node, own_address, ray
from running import SWEEP, run_here
from safetensors.torch import load_file

from raycib.config.presets import StrategyName
from raycib.store import Store
from raycib.store.kinds import STAGES

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

ALIGNED = (
    "--base", "world:aligned", "--alignment", "world:align.train#first-80",
    "--task", "world:open.train#first-640", "--harmful", "world:harmful.test#first-20",
    "--seeds", "1", "--strengths", "0,5",
    "--set", "trainer.batch_size=32", "--set", "trainer.warmup_steps=0",
)  # fmt: skip
"""All weights for 9 steps, on batches of 32 and of 16 rows, then two adapters for 18 each."""
APART = ("--workers", "2", "--set", "execution.cpus_per_worker=0.6")
"""No node of one CPU has room for both workers."""


class Sweep(NamedTuple):
    """What a sweep left behind, and what it printed."""

    out: Path
    said: str

    @property
    def table(self) -> list[list[str]]:
        """Its rows, each in columns, under their names."""
        _, _, below = self.said.partition("\nMethod  ")
        lines = below.partition("\nThe judge by")[0].strip().splitlines()
        return [re.split(r"\s{2,}", line.strip()) for line in lines if not line.startswith("──")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """One worker, in this process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    return Sweep(out, run_here(out, *ALIGNED).out)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    """One CPU each."""
    with head(1, host=own_address()) as cluster, node(cluster, cpus=1):
        yield cluster


@pytest.mark.parametrize("strategy", get_args(StrategyName))
def test_a_job_on_two_nodes_gives_the_table_of_one_worker(
    strategy: str, two_nodes: Cluster, alone: Sweep, tmp_path: Path
) -> None:
    """The aligned model and both adapters, up to the order in which gradients are added; all that
    is asked and judged of them; and what the first worker measures alone of a base in shards."""
    out = tmp_path / "out"
    # Without --working-dir: nodes of one machine share its folder, and each writes it anew.
    program = ["python", str(SWEEP), "--out", str(out), *ALIGNED, *APART]
    program += ["--set", f"execution.strategy={strategy}"]
    job = ray(two_nodes.environ, "job", "submit", "--", *program)
    said = job.stdout + job.stderr
    assert job.returncode == 0, said
    assert "3 stages, 0 reused, 3 to train, 0 failed before" in said
    found = Sweep(out, said)
    assert found.table == alone.table and len(found.table) == 4
    ours, theirs = (sorted(one.glob("stages/*/*model.safetensors")) for one in (alone.out, out))
    assert [one.parent.name for one in ours] == [one.parent.name for one in theirs]
    assert len(ours) == 3
    for one, two in zip(map(load_file, ours), map(load_file, theirs), strict=True):
        assert one.keys() == two.keys()
        # AdamW moves a weight by some 1e-3 a step; where its gradient is zero, rounding decides.
        assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-3
    assert {one.about["workers"] for one in Store(str(out)).records(STAGES)} == {2}
