"""A sweep on a cluster of two nodes, with a worker on each: submitted as a job, as KubeRay does it,
and as Slurm runs it."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import yaml
from programs import ROOT, SWEEP
from ray_head import Cluster, head, node, own_address, ray
from running import PLANTED, environment, files_with, ray_folder, run_here
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


def kuberay(name: str) -> dict[str, Any]:
    """What KubeRay reads of such a file in cluster/."""
    return yaml.safe_load((ROOT / "cluster" / name).read_text())["spec"]


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One CPU each, and what kuberay.yaml gives its head: what it calls its resource, which only a
    head that stays has, and the environment of its container, with a secret."""
    group = kuberay("kuberay.yaml")["headGroupSpec"]
    resources = yaml.safe_load(group["rayStartParams"]["resources"])  # as its shell reads it
    [container] = group["template"]["spec"]["containers"]
    assert [one["name"] for one in container["env"]] == ["HF_HOME", "HF_TOKEN"]
    own = {"HF_HOME": str(tmp_path_factory.mktemp("hub")), "HF_TOKEN": PLANTED}
    given = f"--resources={resources}"
    with head(1, given, host=own_address(), **own) as cluster, node(cluster, cpus=1):
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
        limit = 1e-4 if strategy == "replicated" else 1e-3
        assert max(float((one[name] - two[name]).abs().max()) for name in one) < limit
    assert {one.about["workers"] for one in Store(str(out)).records(STAGES)} == {2}


ON_CPUS = (
    "--model", "world:aligned", "--judge", "world:guard", "--task", "world:open.train#first-80",
    "--harmful", "world:harmful.test#first-12", "--benign", "world:benign.test#first-8",
    "--probes", "world:facts.test#first-8", "--max-length", "256", "--max-tokens", "40",
    "--seeds", "1", "--strengths", "0,5", "--set", "trainer.batch_size=8",
    "--set", "execution.gpus_per_worker=0", "--set", "execution.cpus_per_worker=0.4",
    "--set", "execution.engine_gpus=0", "--set", "execution.engine_cpus=0.3",
    "--set", "execution.judge_gpus=0", "--set", "execution.judge_cpus=0.2",
)  # fmt: skip
"""What a preset for GPUs needs on CPUs without a network."""


@pytest.mark.faults
def test_the_rayjob_runs_as_kuberay_submits_it(two_nodes: Cluster, tmp_path: Path) -> None:
    """Its entrypoint, which only names folders of this machine and brings CPUs and small models:
    under the preset that is written there. Applied again it has nothing left to do."""
    out = tmp_path / "runs"
    entrypoint = kuberay("kuberay-job.yaml")["entrypoint"]
    assert entrypoint.count("/home/ray/raycib/") == entrypoint.count("/shared/runs") == 1
    here = entrypoint.replace("/home/ray/raycib", str(ROOT)).replace("/shared/runs", str(out))
    program = [*shlex.split(here), *ON_CPUS]
    reference = tmp_path / "reference"
    expected = run_here(reference, "--preset", "llama31-8b", *ON_CPUS).out
    logs = []
    for name in ("raycib-lambda-1", "raycib-lambda-2"):
        submit = "job", "submit", "--no-wait", "--submission-id", name, "--"
        assert ray(two_nodes.environ, *submit, *program).returncode == 0
        log = ray(two_nodes.environ, "job", "logs", "--follow", name).stdout
        status = ray(two_nodes.environ, "job", "status", name).stdout
        assert "SUCCEEDED" in status.upper(), log
        logs.append(log)
    assert "2 stages, 0 reused, 2 to train, 0 failed before" in logs[0]
    assert "2 stages, 2 reused, 0 to train, 0 failed before" in logs[1]
    table = Sweep(reference, expected).table
    assert Sweep(out, logs[0]).table == Sweep(out, logs[1]).table == table
    files = (
        {file.parent.name: file.read_bytes() for file in one.glob("stages/*/*model.safetensors")}
        for one in (reference, out)
    )
    assert next(files) == next(files)
    assert not files_with(PLANTED, out, two_nodes.temp) and PLANTED not in "".join(logs)


def test_no_node_joins_without_the_token(two_nodes: Cluster) -> None:
    """Neither where Ray is told of no token nor with a guessed one: nobody's programs come to it,
    and nobody's weights."""
    stranger = two_nodes.environ | {"RAY_AUTH_TOKEN_PATH": "", "RAY_NUM_REDIS_GET_RETRIES": "1"}
    stranger |= {"HOME": str(two_nodes.temp / "nobody")}
    for token in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 32}):
        came = ray(stranger | token, "start", f"--address={two_nodes.gcs}", "--disable-usage-stats")
        assert came.returncode != 0 and "InvalidAuthToken" in came.stdout + came.stderr, came


NODES = {"raycib-a": "10.213.0.1", "raycib-b": "10.213.0.2"}
"""Two nodes of Slurm, with networks, processes and temp folders of their own."""
SRUN = """#!/usr/bin/env bash
set -uo pipefail
while [[ $1 == --* ]]; do shift; done
[[ $1 == hostname ]] && { echo "%(head)s 192.0.2.9"; exit; }
task() {
  ip netns exec "$1" unshare --pid --fork --kill-child --mount-proc bash -c \\
    'mkdir -p /tmp/ray "$0/$1" && mount --bind "$0/$1" /tmp/ray && shift && exec "$@"' \\
    "%(folder)s" "$@"
}
task raycib-b "$@" & task raycib-a "$@"; code=$?
wait
exit "$code"
"""


def ip(*arguments: str) -> bool:
    """Whether the command went well."""
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def srun() -> Iterator[Path]:
    """A folder with an `srun` for two nodes; they are gone afterwards."""
    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("networks of one's own need root, ip and unshare")
    first, second = NODES
    try:
        made = all(ip("netns", "add", name) for name in NODES)
        pair = f"link add to-b netns {first} type veth peer to-a netns {second}"
        made &= ip(*pair.split())
        for (name, address), link in zip(NODES.items(), ("to-b", "to-a"), strict=True):
            made &= ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            made &= all(ip("-n", name, "link", "set", one, "up") for one in ("lo", link))
            made &= ip("-n", name, "route", "add", "default", "dev", link)
        if not made:
            pytest.skip("networks cannot be made here")
        with ray_folder() as folder:
            program = folder / "srun"
            program.write_text(SRUN % {"head": NODES[first], "folder": folder})
            program.chmod(0o755)
            yield folder
    finally:
        for name in NODES:
            ip("netns", "delete", name)


@pytest.mark.faults
def test_the_slurm_job_gives_the_table_of_one_worker(
    srun: Path,
    alone: Sweep,
    tmp_path: Path,
) -> None:
    """`ray symmetric-run` on both nodes, a worker of each group on either."""
    out, home = tmp_path / "out", tmp_path / "home"
    home.mkdir()
    kept = {n: v for n, v in environment(srun).items() if not n.startswith("RAY_AUTH_TOKEN")}
    environ = kept | {
        "PATH": f"{srun}:{kept['PATH']}",
        "HOME": str(home),
        "HF_HOME": str(tmp_path / "hub"),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT": "300",
    }
    del environ["RAY_TMPDIR"]
    job = ["bash", "cluster/slurm.sh", "sweeps/lambda_grid.py", "--out", str(out)]
    ended = subprocess.run(
        [*job, *ALIGNED, *APART, "--set", "execution.strategy=fsdp2"],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    assert Sweep(out, ended.stdout).table == alone.table
    assert {one.about["workers"] for one in Store(str(out)).records(STAGES)} == {2}
    token = home / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o077 == 0
    assert token.read_text() not in said
