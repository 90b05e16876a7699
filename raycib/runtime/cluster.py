"""Connect to a Ray cluster, or start one on this machine."""

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray.util.client import ray as client

from raycib.config.presets import Execution
from raycib.errors import UserError, line_of
from raycib.runtime import joins_a_cluster, token_file
from raycib.runtime.bare_ray import bare
from raycib.runtime.capacity import groups_that_fit, lacking
from raycib.runtime.scratch import Scratch
from raycib.tracking.session import without_password

# One thread a process: on shared cores a second thread makes small matrix products 10 to 30 times
# slower. The rest keeps libraries from phoning home or printing over the live view.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}

DRIVER_RESOURCE = "TRAIN_DRIVER"
"""Custom resource of nodes that must not be preempted; trials stay there where it exists."""

STARTS = 4
"""Tries to start Ray on this machine."""
REACH_S = 40
"""Seconds within which a cluster that is there answers."""
SOCKET_BYTES = 107
"""Linux allows that much for the path of a socket."""


class Cluster(NamedTuple):
    """What there is to work with."""

    dashboard: str
    """URL, or "" without one."""
    groups_at_once: int
    pins_drivers: bool
    """Whether nodes for trial drivers are marked with `DRIVER_RESOURCE`."""
    shared: bool
    """Whether it was there before, and others may be at work on it."""
    resources: dict[str, Any]
    scratch: Scratch | None
    """The temp folder of one's own."""

    def close(self) -> None:
        """End what was started here, and what it left in the temp folder."""
        if self.scratch is not None:
            ray.shutdown()
            self.scratch.remove()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Every `ray.init` puts Ray's own handler in the place of ours, which ends with a line."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before):
            signal.signal(signal.SIGTERM, before)


@_sigterm_kept()
def connect(execution: Execution, judge_is_served: bool = True, dashboard: bool = False) -> Cluster:
    """The cluster of `RAY_ADDRESS` (a submitted job has it), or a new one on this machine, which
    has a `dashboard` only where one is asked for: it costs more than all else of Ray.

    `UserError` where it cannot be reached or started, or is one's own and too small.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if client.is_connected():
        raise UserError(f"this process is a client of a Ray elsewhere (ray://): {_INSIDE}")
    shared, scratch = joins_a_cluster(), None
    if not ray.is_initialized():
        if shared:
            _join(os.environ["RAY_ADDRESS"])
        else:
            scratch = _start_here(dashboard)
    resources = _resources()
    cluster = Cluster(
        dashboard=_dashboard(),
        groups_at_once=groups_that_fit(
            execution, resources.get("CPU", 1.0), resources.get("GPU", 0.0)
        ),
        pins_drivers=DRIVER_RESOURCE in resources,
        shared=shared,
        resources=resources,
        scratch=scratch,
    )
    if short := lacking(execution, resources, judge_is_served):
        if not shared:
            cluster.close()
            raise UserError(f"this machine is too small: {'; '.join(short)}")
        print(f"waiting until the cluster has more nodes: {'; '.join(short)}", flush=True)
    return cluster


def _resources() -> dict[str, Any]:
    """All there is; a cluster that has just begun may take a moment to say it."""
    deadline = time.monotonic() + 5
    while "CPU" not in (there := ray.cluster_resources()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return there


def _init(**where: Any) -> None:
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)


def _join(address: str) -> None:
    """Join a cluster that answers; Ray itself tries one that does not for minutes, then ends the
    process. It is asked from another process, since no signal interrupts the asking."""
    where = f"RAY_ADDRESS={without_password(address)}"
    if "://" in address:
        raise UserError(f"{where}: {_INSIDE}; {_MEND}")
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"{where}: {error}; {_MEND}") from error
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        asked = subprocess.run(
            ask, capture_output=True, text=True, timeout=REACH_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{where}: no Ray answers there within {REACH_S} s; {_MEND}") from None
    if asked.returncode:
        said = (asked.stderr.strip().splitlines() or ["no Ray there"])[-1]
        raise UserError(f"{where}: {said}; {_MEND}")
    try:
        _init(address="auto", runtime_env={"env_vars": ENVIRONMENT})
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"{where}: {line_of(error)}; {_MEND}") from error


_INSIDE = (
    "a sweep runs on the cluster itself, by `ray job submit` or with the HOST:PORT of its head"
)
_MEND = "start that cluster, or unset RAY_ADDRESS for a Ray of your own"


def _start_here(dashboard: bool) -> Scratch:
    """A Ray of one's own, and the temp folder of its processes. On a busy machine its start can
    outlast the half minute that Ray allows it, so it is tried again. What a failed start left
    running is ended."""
    if os.environ.get("RAY_AUTH_MODE") == "token" and not is_token_auth_enabled():
        raise UserError(
            "Ray was imported before raycib.runtime, and would start without a token: import "
            "raycib.runtime first, or set RAY_AUTH_MODE=token"
        )
    own = not os.environ.get("RAY_AUTH_TOKEN_PATH")
    if own and not can_be_kept(token_file()):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    print("starting Ray on this machine", flush=True)
    folder = _folder()
    for left in reversed(range(STARTS)):
        try:
            scratch = Scratch(folder)
        except OSError as error:
            raise UserError(
                f"Ray does not start on this machine: {folder}: {error.strerror}; name another "
                "folder with RAY_TMPDIR"
            ) from error
        try:
            # With a runtime environment it would start other processes than those it has ready.
            whole = nullcontext() if dashboard else bare()
            with scratch.as_temp_folder(ENVIRONMENT), whole:
                _init(
                    address="local",
                    include_dashboard=dashboard,
                    dashboard_host="127.0.0.1",
                    _temp_dir=str(folder),
                )
            if own:
                _hide(token_file())
            return scratch
        except Exception as error:  # Ray raises the bare class
            ray.shutdown()
            scratch.remove()
            said = line_of(error)
            if "timed out during startup" not in said or not left:
                raise UserError(f"Ray does not start on this machine: {said}") from error
            print(
                f"Ray did not start within half a minute, this machine is busy: trying again, "
                f"{left} tries left",
                flush=True,
            )
    raise AssertionError("the last try ends with a result or an error")


def _hide(token: Path) -> None:
    """Ray writes it for everybody to read, who could then run programs as this user."""
    with suppress(OSError):
        if token.stat().st_mode & 0o077:
            token.chmod(0o600)


def can_be_kept(token: Path) -> bool:
    """Whether Ray can read its token there, or write one: a user of a container may have no home.
    Without it the token is in the environment of this Ray alone."""
    place = next((one for one in (token, token.parent) if one.exists()), token.parent.parent)
    return os.access(place, os.R_OK if place == token else os.W_OK)


def _folder() -> Path:
    """Ray's own; its usual one where sockets would have too long a path."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    longest = (
        f"{folder}/ray/session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store.1"
    )
    if len(os.fsencode(longest)) > SOCKET_BYTES:
        print(f"Ray's files are in /tmp/ray: {folder} is too long for its sockets", flush=True)
        folder = "/tmp"
    return Path(folder) / "ray"


def _dashboard() -> str:
    found = ray.init(ignore_reinit_error=True, logging_level=logging.ERROR).dashboard_url
    return f"http://{found}" if found else ""
