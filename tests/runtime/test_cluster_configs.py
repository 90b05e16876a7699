"""The files in cluster/: what Ray, Kubernetes and a shell would refuse, found without a cloud."""

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
import yaml

from raycib.config.presets.papers import LLAMA31_8B
from raycib.runtime.command import parsed

CLUSTER = Path(__file__).parents[2] / "cluster"
LAUNCHER_FILES = ("aws.yaml", "gcp.yaml")
EXECUTION = LLAMA31_8B.execution


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / name).read_text())


def driver_resource() -> str:
    from raycib.runtime.cluster import DRIVER_RESOURCE

    return DRIVER_RESOURCE


def validate(config: dict[str, Any]) -> None:
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text()))


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_ray_accepts_the_launcher_file(name: str) -> None:
    validate(load(name))


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_ray_would_refuse_a_misspelt_key(name: str) -> None:
    """The test above can fail: Ray's schema knows every key outside of `node_config`."""
    config = load(name)
    config["available_node_types"]["gpu"]["min_worker"] = 0
    with pytest.raises(jsonschema.ValidationError, match="min_worker"):
        validate(config)


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_launcher_nodes_fit_the_preset(name: str) -> None:
    types = load(name)["available_node_types"]
    head, gpu = types["head"]["resources"], types["gpu"]["resources"]
    assert driver_resource() in head
    assert "GPU" not in head
    assert driver_resource() not in gpu
    for gpus, cpus in needs():
        assert gpus <= gpu["GPU"]
        assert cpus <= gpu["CPU"]


def needs() -> list[tuple[float, float]]:
    """(GPUs, CPUs) of each thing that the preset starts on a node of its own choice."""
    return [
        (EXECUTION.gpus_per_worker, EXECUTION.cpus_per_worker),
        (EXECUTION.engine_gpus, EXECUTION.engine_cpus),
        (EXECUTION.judge_gpus, EXECUTION.judge_cpus),
    ]


def test_gpu_nodes_are_spot_and_heads_are_not() -> None:
    aws, gcp = (load(name)["available_node_types"] for name in LAUNCHER_FILES)
    assert aws["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in aws["head"]["node_config"]
    assert gcp["gpu"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert "scheduling" not in gcp["head"]["node_config"]


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_nobody_comes_in_without_a_token(name: str) -> None:
    config = load(name)
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]
    [start] = [line for line in config["head_start_ray_commands"] if "--head" in line]
    assert "--dashboard-host=127.0.0.1" in start


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_models_and_results_are_seen_by_every_node(name: str) -> None:
    config = load(name)
    assert "--env HF_HOME=/shared/huggingface" in config["docker"]["run_options"]
    assert "--volume /shared:/shared" in config["docker"]["run_options"]
    assert any("mount -t nfs" in line for line in config["initialization_commands"])


@pytest.mark.parametrize(
    "name", [*LAUNCHER_FILES, "kuberay.yaml", "kuberay-judge.yaml", "Dockerfile"]
)
def test_every_file_names_the_installed_ray_and_python(name: str) -> None:
    """A job's driver, its workers and its head have to run the same Ray."""
    import ray

    text = (CLUSTER / name).read_text()
    found = set(re.findall(r"rayproject/ray:([\d.]+)-py311", text))
    found |= set(re.findall(r"rayVersion: ([\d.]+)", text))
    assert found == {ray.__version__}


def closed(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    """The schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


TEXT, COUNT, LIST = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "array"}
AMOUNTS = {"type": "object", "additionalProperties": TEXT}
CONTAINER = closed(
    ("name", "image", "resources"),
    name=TEXT,
    image=TEXT,
    env=LIST,
    resources=closed(("requests", "limits"), requests=AMOUNTS, limits=AMOUNTS),
    volumeMounts=LIST,
)
POD = closed(
    ("spec",),
    spec=closed(
        ("containers", "volumes"),
        containers={"type": "array", "items": CONTAINER, "minItems": 1, "maxItems": 1},
        volumes=LIST,
        nodeSelector={"type": "object"},
        tolerations=LIST,
        securityContext=closed((), fsGroup=COUNT),
        terminationGracePeriodSeconds=COUNT,
    ),
)
RAY_CLUSTER = closed(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayCluster"},
    metadata=closed(("name",), name=TEXT),
    spec=closed(
        ("headGroupSpec", "workerGroupSpecs", "authOptions", "rayVersion"),
        rayVersion=TEXT,
        authOptions=closed(("mode",), mode={"enum": ["token"]}),
        enableInTreeAutoscaling={"type": "boolean"},
        autoscalerOptions=closed((), version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=COUNT),
        gcsFaultToleranceOptions=closed((), redisAddress=TEXT),
        headGroupSpec=closed(
            ("rayStartParams", "template"),
            serviceType={"const": "ClusterIP"},
            rayStartParams=AMOUNTS,
            template=POD,
        ),
        workerGroupSpecs={
            "type": "array",
            "items": closed(
                ("groupName", "rayStartParams", "template", "minReplicas", "maxReplicas"),
                groupName=TEXT,
                replicas=COUNT,
                minReplicas=COUNT,
                maxReplicas=COUNT,
                rayStartParams=AMOUNTS,
                template=POD,
            ),
        },
    ),
)
"""The part of KubeRay's definition (ray.io/v1) that kuberay.yaml uses, written by hand and closed:
a misspelt or misplaced field fails. The whole definition is 1 MB and is not shipped with Ray."""


RAY_JOB = closed(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=closed(("name",), name=TEXT),
    spec=closed(("clusterSelector", "entrypoint"), clusterSelector=AMOUNTS, entrypoint=TEXT),
)


def test_a_sweep_as_an_object_names_the_cluster_and_a_command_that_is_planned(
    tmp_path: Path,
) -> None:
    job = load("kuberay-job.yaml")
    jsonschema.validate(job, RAY_JOB)
    name = load("kuberay.yaml")["metadata"]["name"]
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": name}
    python, script, *options = job["spec"]["entrypoint"].split()
    assert python == "python"
    home = "/home/ray/raycib/"  # where the Dockerfile copies the project to
    assert home.rstrip("/") in (CLUSTER / "Dockerfile").read_text()
    assert (CLUSTER.parent / script.removeprefix(home)).is_file()
    assert parsed(options).preset == "llama31-8b"
    # A pod beside the head submits it and the operator asks how it is, both at the head's Service.
    cluster = load("kuberay.yaml")["spec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "0.0.0.0"
    assert cluster["authOptions"] == {"mode": "token"}


def test_the_judge_that_stays_is_what_serve_and_its_engine_accept() -> None:
    from ray.serve.llm import LLMConfig
    from ray.serve.schema import ServeDeploySchema

    service, policy = yaml.safe_load_all((CLUSTER / "kuberay-judge.yaml").read_text())
    assert set(service["spec"]) == {"serveConfigV2", "rayClusterConfig"}
    spec = RAY_CLUSTER["properties"]["spec"]
    jsonschema.validate(service["spec"]["rayClusterConfig"], spec)
    served = ServeDeploySchema(**yaml.safe_load(service["spec"]["serveConfigV2"]))
    [config] = [LLMConfig(**one) for one in served.applications[0].args["llm_configs"]]
    [gpu] = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert gpu["maxReplicas"] == config.deployment_config["autoscaling_config"]["max_replicas"]
    asked = f"http://{service['metadata']['name']}-serve-svc:8000/v1 --judge-profile llama-guard-3"
    assert asked in (CLUSTER / "kuberay-judge.yaml").read_text()
    assert policy["spec"]["podSelector"]["matchLabels"] == {
        "ray.io/originated-from-cr-name": service["metadata"]["name"]
    }


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
    assert list(json.loads(started["resources"])) == [driver_resource()]
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


def test_kuberay_file_has_the_fields_that_kuberay_reads() -> None:
    jsonschema.validate(load("kuberay.yaml"), RAY_CLUSTER)


def test_the_kuberay_schema_notices_a_misspelt_field() -> None:
    config = load("kuberay.yaml")
    config["spec"]["workerGroupSpecs"][0]["minReplica"] = 0
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        jsonschema.validate(config, RAY_CLUSTER)


def test_kuberay_groups_fit_the_preset() -> None:
    spec = load("kuberay.yaml")["spec"]
    head, [gpu] = spec["headGroupSpec"], spec["workerGroupSpecs"]
    # KubeRay pastes the value into a shell command; inside the quotes it is JSON.
    given = yaml.safe_load(yaml.safe_load(head["rayStartParams"]["resources"]))
    assert list(given) == [driver_resource()]
    [worker] = gpu["template"]["spec"]["containers"]
    limits = worker["resources"]["limits"]
    assert limits == worker["resources"]["requests"]
    assert gpu["rayStartParams"] == {}
    for gpus, cpus in needs():
        assert gpus <= int(limits["nvidia.com/gpu"])
        assert cpus <= int(limits["cpu"])


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
    assert driver_resource() in script.read_text()


def test_the_readme_names_every_file_and_the_resource() -> None:
    text = (CLUSTER / "README.md").read_text()
    unnamed = {f.name for f in CLUSTER.iterdir() if f"({f.name})" not in text}
    assert unnamed == {"README.md", "Dockerfile.dockerignore"}
    assert driver_resource() in text
