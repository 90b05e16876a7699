"""The same sweep as a job on a Ray cluster that was there before."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from running import (
    NAME,
    PATIENCE_S,
    ROOT,
    SMALL,
    Reference,
    Running,
    adapters,
    environment,
    ray_folder,
    scores,
    summary_of,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

RAY = str(Path(sys.executable).with_name("ray"))


class Cluster(NamedTuple):
    """A Ray that was started from the command line."""

    address: str
    environ: dict[str, str]
    """Of those who may use it."""
    temp: Path


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two CPUs, a token in a file, nothing but loopback."""
    with ray_folder() as temp:
        token = temp / "token"
        token.write_text("fedcba9876543210fedcba9876543210")
        token.chmod(0o600)
        port, dashboard, client, agent, grpc = free_ports(5)
        command = [RAY, "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"]
        command += ["--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={temp / 'ray'}"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        command += [f"--ray-client-server-port={client}", f"--dashboard-agent-grpc-port={grpc}"]
        command += [f"--dashboard-agent-listen-port={agent}"]
        own = {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_AUTH_TOKEN": ""}
        own |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # it listens on loopback, as asked
        head = Running(command, temp, temp / "head", **own)
        address = f"http://127.0.0.1:{dashboard}"
        environ = environment(temp) | own | {"RAY_API_SERVER_ADDRESS": address}
        try:
            head.until(lambda: "Ray runtime started" in head.said, 120)
            head.until(lambda: ray(environ, "job", "list").returncode == 0, 120)
            yield Cluster(address, environ, temp)
        finally:
            head.clean()


def ray(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The `ray` program, to its end."""
    return subprocess.run(
        [RAY, *arguments],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_submit_without_the_token_is_refused(cluster: Cluster) -> None:
    stranger = cluster.environ | {"RAY_AUTH_TOKEN_PATH": "", "HOME": str(cluster.temp / "nobody")}
    refused = ray(stranger | {"RAY_AUTH_MODE": "disabled"}, "job", "submit", "--", "touch", "/x")
    assert refused.returncode != 0
    assert "nauthor" in refused.stdout + refused.stderr
    guessed = stranger | {"RAY_AUTH_TOKEN": "0" * 32}
    assert ray(guessed, "job", "submit", "--", "touch", "/x").returncode != 0
    assert not ray(cluster.environ, "job", "list").stdout.count("touch")
    assert not os.path.exists("/x")


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
