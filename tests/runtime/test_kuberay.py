"""The files in cluster/ for Kubernetes: what KubeRay would refuse, found without one."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from cluster_files import CLUSTER, load, needs

from raycib.runtime.cluster import DRIVER_RESOURCE
from raycib.runtime.command import parsed


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


def test_kuberay_file_has_the_fields_that_kuberay_reads_and_no_misspelt_one() -> None:
    config = load("kuberay.yaml")
    jsonschema.validate(config, RAY_CLUSTER)
    config["spec"]["workerGroupSpecs"][0]["minReplica"] = 0
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        jsonschema.validate(config, RAY_CLUSTER)


def test_kuberay_groups_fit_the_preset() -> None:
    spec = load("kuberay.yaml")["spec"]
    head, [gpu] = spec["headGroupSpec"], spec["workerGroupSpecs"]
    # KubeRay pastes the value into a shell command; inside the quotes it is JSON.
    given = yaml.safe_load(yaml.safe_load(head["rayStartParams"]["resources"]))
    assert list(given) == [DRIVER_RESOURCE]
    [worker] = gpu["template"]["spec"]["containers"]
    limits = worker["resources"]["limits"]
    assert limits == worker["resources"]["requests"]
    assert gpu["rayStartParams"] == {}
    for gpus, cpus in needs():
        assert gpus <= int(limits["nvidia.com/gpu"])
        assert cpus <= int(limits["cpu"])
