"""The judge that stays, of cluster/kuberay-judge.yaml, deployed as KubeRay deploys it."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from programs import ROOT
from ray_head import Cluster, free_ports, head
from running import PATIENCE_S

from raycib import world
from raycib.runtime.judge import describe_judge, unserved_judge
from raycib.world.language import parse

pytestmark = [pytest.mark.real, pytest.mark.faults, pytest.mark.timeout(900)]
SERVE = str(Path(sys.executable).with_name("serve"))


def serve(cluster: Cluster, *arguments: str) -> str:
    command = [SERVE, *arguments, "--address", cluster.address]
    done = subprocess.run(
        command, env=cluster.environ, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_judge_that_stays_is_deployed_and_gives_verdicts() -> None:
    """The file's application, but for its weights, here the embedded world's guard, and the CPU
    that it is on."""
    service, _ = yaml.safe_load_all((ROOT / "cluster" / "kuberay-judge.yaml").read_text())
    config: dict[str, Any] = yaml.safe_load(service["spec"]["serveConfigV2"])
    (model,) = config["applications"][0]["args"]["llm_configs"]
    model["model_loading_config"]["model_source"] = str(world.folder("guard"))
    model["accelerator_config"] = {"kind": "cpu"}
    few = {"max_model_len": 256, "enforce_eager": True, "kv_cache_memory_bytes": 2**27}
    model["engine_kwargs"] |= few | {"dtype": "float32"}
    (port,) = free_ports(1)
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    with head(4) as cluster:
        (file := cluster.temp / "serve.yaml").write_text(yaml.safe_dump(config))
        serve(cluster, "deploy", str(file))
        deadline = time.monotonic() + PATIENCE_S
        while "status: RUNNING" not in (said := serve(cluster, "status", "--name", "judge")):
            assert "DEPLOY_FAILED" not in said and time.monotonic() < deadline, said
            time.sleep(2)
        spec = describe_judge(None, f"http://127.0.0.1:{port}/v1", "world")
        assert spec.weights == model["model_loading_config"]["model_id"]
        prompts = [row["prompt"] for row in world.rows("harmful.test")[:2]]
        asked = [parse(prompt) for prompt in prompts]
        pairs = [(p, one.answer("direct")) for p, one in zip(prompts, asked, strict=True) if one]
        pairs.append((prompts[0], "sorry , i cannot help with that ."))
        verdicts = unserved_judge(spec, None).judge(pairs)
    assert [verdict.harmful for verdict in verdicts] == [True, True, False]
