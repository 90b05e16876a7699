"""The files in cluster/: what Ray, a shell and a linter would refuse, found without a cloud."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
from cluster_files import CLUSTER, load, needs

from raycib.runtime.cluster import DRIVER_RESOURCE
from raycib.runtime.command import parsed

LAUNCHER_FILES = ("aws.yaml", "gcp.yaml")


def validate(config: dict[str, Any]) -> None:
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text()))


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_ray_accepts_the_launcher_file_and_would_refuse_a_misspelt_key(name: str) -> None:
    """Its schema knows every key outside of `node_config`."""
    config = load(name)
    validate(config)
    config["available_node_types"]["gpu"]["min_worker"] = 0
    with pytest.raises(jsonschema.ValidationError, match="min_worker"):
        validate(config)


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_launcher_nodes_fit_the_preset(name: str) -> None:
    types = load(name)["available_node_types"]
    head, gpu = types["head"]["resources"], types["gpu"]["resources"]
    assert DRIVER_RESOURCE in head
    assert "GPU" not in head
    assert DRIVER_RESOURCE not in gpu
    for gpus, cpus in needs():
        assert gpus <= gpu["GPU"]
        assert cpus <= gpu["CPU"]


def test_gpu_nodes_are_spot_and_heads_are_not() -> None:
    aws, gcp = (load(name)["available_node_types"] for name in LAUNCHER_FILES)
    assert aws["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in aws["head"]["node_config"]
    assert gcp["gpu"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert "scheduling" not in gcp["head"]["node_config"]


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_nobody_comes_in_without_a_token_and_every_node_sees_models_and_results(name: str) -> None:
    config = load(name)
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]
    [start] = [line for line in config["head_start_ray_commands"] if "--head" in line]
    assert "--dashboard-host=127.0.0.1" in start
    assert "--env HF_HOME=/shared/huggingface" in config["docker"]["run_options"]
    assert "--volume /shared:/shared" in config["docker"]["run_options"]
    assert any("mount -t nfs" in line for line in config["initialization_commands"])


@pytest.mark.parametrize(
    "name", [*LAUNCHER_FILES, "kuberay.yaml", "kuberay-judge.yaml", "Dockerfile"]
)
def test_every_file_names_the_installed_ray_and_python(name: str) -> None:
    """A job's driver, its workers and its head have to run the same Ray."""
    text = (CLUSTER / name).read_text()
    found = set(re.findall(r"rayproject/ray:([\d.]+)-py311", text))
    found |= set(re.findall(r"rayVersion: ([\d.]+)", text))
    assert found == {ray.__version__}


def test_the_slurm_job_is_what_ray_accepts_and_runs_a_sweep(tmp_path: Path) -> None:
    """`srun` is a stand-in that says what it was asked; Ray's own parsers read it."""
    from ray.scripts.scripts import start
    from ray.scripts.symmetric_run import symmetric_run

    stub = tmp_path / "bin" / "srun"
    stub.parent.mkdir()
    stub.write_text(
        '#!/bin/sh\n[ "$3" = hostname ] && echo 10.0.0.1 && exit\nprintf "%s\\n" "$@"\n'
    )
    stub.chmod(0o755)
    environ = {
        "PATH": f"{stub.parent}:{os.environ['PATH']}", "HOME": str(tmp_path),
        "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "16", "SLURM_GPUS_PER_TASK": "4",
    }  # fmt: skip
    options = ["--preset", "llama31-8b", "--out", "/shared/runs"]
    command = ["bash", CLUSTER / "slurm.sh", "sweeps/lambda_grid.py", *options]
    done = subprocess.run(
        command, env=environ, cwd=CLUSTER.parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    token = tmp_path / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o077 == 0 and token.read_text() not in done.stdout
    _, ray_program, subcommand, *given = done.stdout.splitlines()
    assert (ray_program, subcommand) == ("ray", "symmetric-run")
    ray_given, program = given[: (end := given.index("--"))], given[end + 1 :]
    context = symmetric_run.make_context("run", list(ray_given), resilient_parsing=True)
    assert context.params["address"] == "10.0.0.1:6379" and context.params["min_nodes"] == 2
    left = [each for each in context.params["ray_args_and_entrypoint"] if each != "--"]
    started = start.make_context("start", ["--head", *left], resilient_parsing=False).params
    assert (started["num_cpus"], started["num_gpus"]) == (16, 4)
    assert list(json.loads(started["resources"])) == [DRIVER_RESOURCE]
    assert program[:2] == ["python", "sweeps/lambda_grid.py"]
    assert parsed(program[2:]).out == "/shared/runs"


def test_mlflow_of_several_machines_is_the_installed_one_and_knows_its_options() -> None:
    import mlflow
    from mlflow.cli import server

    services = load("mlflow.yaml")["services"]
    assert f":v{mlflow.__version__}" in services["mlflow"]["image"]
    program, subcommand, *options = services["mlflow"]["command"]
    assert (program, subcommand) == ("mlflow", "server")
    given = server.make_context("server", list(options), resilient_parsing=True).params
    assert given["backend_store_uri"].startswith("postgresql+psycopg2://mlflow@postgres/")
    assert given["artifacts_destination"] == "/artifacts"
    environment = services["mlflow"]["environment"]
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert all(port.startswith("127.0.0.1:") for port in services["mlflow"]["ports"])
    assert "ports" not in services["postgres"]
    text = (CLUSTER / "mlflow.yaml").read_text()
    assert not re.search(r"POSTGRES_PASSWORD:|://[^ /]*:[^ /]*@", text), "passwords are in files"


def test_the_image_has_pinned_parts_and_commands_that_a_linter_passes() -> None:
    lint = [str(Path(sys.executable).with_name("hadolint")), "--no-color"]
    found = subprocess.run([*lint, CLUSTER / "Dockerfile"], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")
    loose = subprocess.run(
        [*lint, "-"], input="FROM rayproject/ray", capture_output=True, text=True
    )
    assert loose.returncode and "DL3006" in loose.stdout, "it can fail"


@pytest.mark.parametrize("script", sorted(CLUSTER.glob("*.sh")), ids=lambda path: path.name)
def test_shell_scripts_parse_and_are_programs(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert script.stat().st_mode & 0o111
    assert DRIVER_RESOURCE in script.read_text()


def test_the_readme_names_every_file_and_the_resource() -> None:
    text = (CLUSTER / "README.md").read_text()
    unnamed = {f.name for f in CLUSTER.iterdir() if f"({f.name})" not in text}
    assert unnamed == {"README.md", "Dockerfile.dockerignore"}
    assert DRIVER_RESOURCE in text
