"""One Ray that was there before: the tests that need a cluster share it."""

import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
from programs import ROOT
from running import PATIENCE_S, Running, environment, ray_folder

RAY = str(Path(sys.executable).with_name("ray"))


LOOPBACK = "127.0.0.1"


def own_address() -> str:
    """Of this machine: where what it sends to others comes from. Nothing is sent here. Ray's own
    answer is loopback once raycib's runtime is imported."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(("192.0.2.254", 9))
        return str(one.getsockname()[0])


class Cluster(NamedTuple):
    """A Ray that was started from the command line."""

    address: str
    environ: dict[str, str]
    """Of those who may use it."""
    temp: Path
    gcs: str
    """What `RAY_ADDRESS` is on it."""
    client: str
    """Where Ray Client comes in."""
    head: Running
    """Its first node."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, of those that the system gives to nobody by itself: none is
    taken before it is used."""
    free = set[int]()
    while len(free) < count:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as one, suppress(OSError):
            one.bind(("", port))
            free.add(port)
    return list(free)


@contextmanager
def head(
    cpus: int = 2, *options: str, host: str = LOOPBACK, port: int = 0, **environ_too: str
) -> Iterator[Cluster]:
    """Two CPUs, a token in a file, nothing but loopback; more `options` for `ray start`. For nodes
    that join it needs the machine's own address as its `host`."""
    with ray_folder() as temp:
        token = temp / "token"
        token.write_text("fedcba9876543210fedcba9876543210")
        token.chmod(0o600)
        free, dashboard, client, agent, grpc = free_ports(5)
        port = port or free
        command = [RAY, "start", "--head", "--block", f"--num-cpus={cpus}"]
        command += [f"--node-ip-address={host}", f"--port={port}", f"--temp-dir={temp / 'ray'}"]
        command += ["--disable-usage-stats"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        command += [f"--ray-client-server-port={client}", f"--dashboard-agent-grpc-port={grpc}"]
        command += [f"--dashboard-agent-listen-port={agent}"]
        own = {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_AUTH_TOKEN": ""}
        # Without it Ray takes another address than loopback; with it no node may join.
        own |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0" if host == LOOPBACK else "1"}
        running = Running([*command, *options], temp, temp / "head", **own | environ_too)
        address = f"http://127.0.0.1:{dashboard}"
        environ = environment(temp) | own | {"RAY_API_SERVER_ADDRESS": address}
        try:
            running.until(lambda: "Ray runtime started" in running.said, 120)
            running.until(lambda: ray(environ, "job", "list").returncode == 0, 120)
            yield Cluster(
                address, environ, temp, f"{host}:{port}", f"ray://{host}:{client}", running
            )
        finally:
            running.clean()


@contextmanager
def node(cluster: Cluster, cpus: int = 2, **resources: float) -> Iterator[Running]:
    """Another node of the cluster, until it is left; `clean` ends it as a power cut does."""
    agent, grpc, metrics = free_ports(3)
    command = [RAY, "start", f"--address={cluster.gcs}", "--block", f"--num-cpus={cpus}"]
    command += [f"--node-ip-address={own_address()}", f"--resources={json.dumps(resources)}"]
    command += ["--disable-usage-stats", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--dashboard-agent-grpc-port={grpc}", f"--metrics-export-port={metrics}"]
    own = {name: value for name, value in cluster.environ.items() if name.startswith("RAY")}
    with ray_folder() as temp:
        running = Running(command, temp, temp / "node", **own)
        try:
            running.until(lambda: "Ray runtime started" in running.said, 120)
            yield running
        finally:
            running.clean()


def part(node: Running, program: str) -> int:
    """The process of a node's `raylet`, or of the head's `gcs_server`."""
    found = psutil.Process(node.process.pid).children(recursive=True)
    (one,) = [each.pid for each in found if each.name() == program]
    return one


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
