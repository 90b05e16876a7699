"""The same sweep on a Ray cluster that was there before: as a job, killed, beside others."""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import httpx
import pytest
import ray_sweeps
from ray_head import Cluster, free_ports, ray
from running import (
    NAME,
    PLANTED,
    ROOT,
    SMALL,
    Reference,
    Watcher,
    adapters,
    elsewhere,
    files_with,
    holders,
    listening,
    scores,
    summary_of,
    title,
    verdicts,
)

driver = partial(ray_sweeps.driver, small=SMALL)
pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


def test_without_the_token_there_are_metrics_and_an_empty_page(cluster: Cluster) -> None:
    """Of everything that listens, what speaks HTTP refuses, but for Prometheus's metrics and the
    dashboard's program, which shows nothing without the token; the rest is gRPC."""
    sockets = holders(cluster.temp)[1]
    ports = {
        int(address.rpartition(":")[2], 16) for i, address in listening().items() if i in sockets
    }
    said: Counter[str] = Counter()
    for port in ports:
        try:
            reply = httpx.get(f"http://127.0.0.1:{port}/", timeout=10, trust_env=False)
        except httpx.HTTPError:
            said["gRPC"] += 1
        else:
            kind = "metrics" if reply.text.startswith("# HELP") else reply.text[:15]
            said[f"{reply.status_code} {kind}"] += 1
    page, refused = said.pop("200 <!doctype html>"), said.pop("401 Unauthorized: M")
    assert (page, said.keys()) == (1, {"200 metrics", "gRPC"}) and refused >= 2, said
    jobs = httpx.get(f"{cluster.address}/api/jobs/", timeout=30, trust_env=False)
    assert jobs.status_code == 401


def test_a_submit_without_the_token_is_refused(cluster: Cluster) -> None:
    stranger = cluster.environ | {"RAY_AUTH_TOKEN_PATH": "", "HOME": str(cluster.temp / "nobody")}
    refused = ray(stranger | {"RAY_AUTH_MODE": "disabled"}, "job", "submit", "--", "touch", "/x")
    assert refused.returncode != 0
    assert "nauthor" in refused.stdout + refused.stderr
    guessed = stranger | {"RAY_AUTH_TOKEN": "0" * 32}
    assert ray(guessed, "job", "submit", "--", "touch", "/x").returncode != 0
    assert not ray(cluster.environ, "job", "list").stdout.count("touch")
    assert not os.path.exists("/x")


STRANGER_DRIVER = """
import sys, ray
try: ray.init(address=sys.argv[1], logging_level="ERROR")
except BaseException as error: print(type(error).__name__, error)
else: print("came in", ray.cluster_resources())
"""


@pytest.mark.parametrize("token", ["", "0" * 32])
def test_no_driver_comes_in_without_the_token(token: str, cluster: Cluster) -> None:
    """Neither where Ray is told of no token nor with a guessed one."""
    stranger = cluster.environ | {"RAY_AUTH_TOKEN_PATH": "", "HOME": str(cluster.temp / "nobody")}
    stranger |= {"RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    stranger |= {"RAY_NUM_REDIS_GET_RETRIES": "1"}
    driver = [sys.executable, "-c", STRANGER_DRIVER, cluster.gcs]
    came = subprocess.run(
        driver, env=stranger, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    said = came.stdout + came.stderr
    assert "nauthenticated" in said and "came in" not in said, said


CLIENT = """
import sys, ray.util
from raycib.config.presets import PRESETS
from raycib.errors import UserError
from raycib.runtime.cluster import connect
try:
    ray.util.connect(sys.argv[1].removeprefix("ray://"), connection_retries=1)
    connect(PRESETS["world"].execution)
except (ConnectionError, UserError) as error: print(error)
"""


def test_a_client_wants_the_token_and_with_it_no_sweep_runs_there(cluster: Cluster) -> None:
    """Ray Client (`ray://`) itself says no more than that nothing answers."""
    stranger = cluster.environ | {"RAY_AUTH_TOKEN_PATH": "", "HOME": str(cluster.temp / "nobody")}
    guessed = stranger | {"RAY_AUTH_TOKEN": "0" * 32}

    def come(environ: dict[str, str]) -> subprocess.Popen[str]:
        client = [sys.executable, "-c", CLIENT, cluster.client]
        return subprocess.Popen(client, env=environ, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    clients = [come(stranger | {"RAY_AUTH_MODE": "disabled"}), come(guessed), come(cluster.environ)]
    none, wrong, own = (one.communicate(timeout=120)[0] for one in clients)
    assert none == wrong == "ray client connection timeout\n", (none, wrong)
    if own.startswith("Initialization failure"):  # Ray's server for a client dies, seldom
        own = come(cluster.environ).communicate(timeout=120)[0]
    assert own.count("\n") == 1 and "a sweep runs on the cluster itself" in own, own


def environments(folder: Path) -> list[bytes]:
    """Of all processes that have a file open there."""
    return [Path(f"/proc/{pid}/environ").read_bytes() for pid in holders(folder)[0]]


def test_a_submitted_sweep_gives_the_same_adapters_and_a_readable_log(
    cluster: Cluster, reference: Reference, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    began = time.monotonic()
    program = ["python", "sweeps/lambda_grid.py", "--out", str(out), *SMALL]
    job = ray(cluster.environ, "job", "submit", "--working-dir", ".", "--", *program)
    log = job.stdout + job.stderr
    print(f"submitted and done in {time.monotonic() - began:.0f} s")
    assert job.returncode == 0, log
    assert "lambda_grid: 2 stages, 0 reused, 2 to train, 0 failed before" in log
    assert "s] training" in log
    assert "\nCIB" in log, "Table 3 is in the job's log"
    assert adapters(out) == adapters(reference.out)
    assert scores(out) == scores(reference.out)
    assert summary_of(out)["versions"] == summary_of(reference.out)["versions"]
    assert (out / NAME / "report.html").exists()
    # The nodes' own environment holds secrets, which the job's processes have from there.
    jobs = ray(cluster.environ, "job", "list").stdout
    titles = [title(pid) for pid in holders(cluster.temp)[0]]
    assert any(PLANTED.encode() in environ for environ in environments(cluster.temp))
    assert not files_with(PLANTED, out, cluster.temp)
    assert not [said for said in (log, jobs, *titles) if PLANTED in said]


STRANGER = """
from ray import serve
@serve.deployment(ray_actor_options={"num_cpus": 0})
def theirs(request): return "theirs"
serve.start(http_options={"host": "127.0.0.1", "port": PORT}, proxy_location="HeadOnly")
serve.run(theirs.bind(), name="theirs", route_prefix="/")
"""


@pytest.fixture(scope="module")
def stranger(cluster: Cluster) -> str:
    """The address of somebody else's application on the cluster's Serve."""
    (port,) = free_ports(1)
    program = [sys.executable, "-c", STRANGER.replace("PORT", str(port))]
    environ = cluster.environ | {"RAY_ADDRESS": cluster.gcs}
    subprocess.run(program, env=environ, cwd=ROOT, check=True, timeout=120, capture_output=True)
    return f"http://127.0.0.1:{port}"


def applications(cluster: Cluster) -> set[str]:
    """Names of all that runs on the cluster's Serve."""
    token = Path(cluster.environ["RAY_AUTH_TOKEN_PATH"]).read_text()
    reply = httpx.get(
        f"{cluster.address}/api/serve/applications/",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
        trust_env=False,
    )
    return set(reply.raise_for_status().json()["applications"])


def answer_of(url: str) -> str:
    return httpx.get(url, timeout=30, trust_env=False).text


def unjudged(reference: Reference, out: Path) -> Path:
    """The reference sweep without its verdicts: all that is left of it is to judge."""
    shutil.copytree(reference.out, out)
    shutil.rmtree(out / "verdicts")
    return out


def whole(out: Path, reference: Reference) -> None:
    """It ended as an undisturbed sweep does: the same scores, each verdict once."""
    assert scores(out) == scores(reference.out)
    assert sorted(verdicts(out)) == sorted(verdicts(reference.out))


@pytest.mark.faults
def test_killed_while_judging_and_run_again_it_finds_its_judge_beside_a_strangers_app(
    cluster: Cluster, stranger: str, reference: Reference, tmp_path: Path
) -> None:
    out = unjudged(reference, tmp_path / "out")
    with driver(cluster, out) as running:
        running.until(lambda: verdicts(out))
        running.kill()
    heard = verdicts(out)
    assert answer_of(stranger) == "theirs"
    began = time.monotonic()
    with driver(cluster, out) as again:
        assert again.wait().code == 0, again.said
    print(f"{len(heard)} verdicts before, {time.monotonic() - began:.0f} s after")
    whole(out, reference)
    counts = summary_of(out)["counts"]
    assert counts["judge_calls"] == len(verdicts(out)) - len(heard)
    assert counts["engine_starts"] == 0, "the judge was up, and was used as it is"
    assert answer_of(stranger) == "theirs", "what is not ours stays as it is"


def test_two_sweeps_share_the_judge_of_the_same_weights_and_the_last_one_takes_it_down(
    cluster: Cluster, stranger: str, reference: Reference, tmp_path: Path
) -> None:
    first, second = (unjudged(reference, tmp_path / name) for name in ("first", "second"))
    with driver(cluster, first) as one, driver(cluster, second) as other, Watcher(one) as seen:
        assert one.wait().code == 0, one.said
        assert other.wait().code == 0, other.said
    ours = {a: who for a, who in elsewhere(seen.addresses).items() if "theirs" not in who}
    assert ours == {}
    for out in (first, second):
        whole(out, reference)
    starts = [summary_of(out)["counts"]["engine_starts"] for out in (first, second)]
    assert sorted(starts) == [0, 1]
    assert applications(cluster) == {"theirs"}
    assert answer_of(stranger) == "theirs"


PHASES = {
    "training": lambda out, said: "training" in said and list((out / "checkpoints").glob("pack-*")),
    "answering": lambda out, said: "answering" in said,
    "judge starting": lambda out, said: "groups of" in said,
    "judging": lambda out, said: verdicts(out),
}


@pytest.mark.faults
@pytest.mark.parametrize("phase", PHASES)
def test_killed_in_any_phase_and_run_again_it_ends_as_if_nothing_had_happened(
    phase: str, cluster: Cluster, reference: Reference, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    if phase == "judge starting":
        unjudged(reference, out)
    for _ in range(2):
        with driver(cluster, out) as running:
            running.until(lambda running=running: PHASES[phase](out, running.said))
            time.sleep(2 if phase == "judge starting" else 0)
            running.kill()
    with driver(cluster, out) as again:
        assert again.wait().code == 0, again.said
    assert adapters(out) == adapters(reference.out)
    whole(out, reference)


@pytest.mark.faults
def test_the_judge_of_a_killed_driver_goes_by_itself(
    cluster: Cluster, stranger: str, reference: Reference, tmp_path: Path
) -> None:
    out = unjudged(reference, tmp_path / "out")
    cluster = cluster._replace(environ=cluster.environ | {"RAYCIB_PATIENCE_S": "10"})
    with driver(cluster, out) as running:
        running.until(lambda: verdicts(out))
        running.kill()
    deadline = time.monotonic() + 120
    while applications(cluster) != {"theirs"}:
        assert time.monotonic() < deadline
        time.sleep(1)
    assert answer_of(stranger) == "theirs"
