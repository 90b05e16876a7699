"""Connect to a Ray cluster, or start one on this machine."""

import logging
import os
from typing import Any, NamedTuple

import ray

from raycib.orchestration.room import packs_that_fit
from raycib.presets import Execution

# One thread a process: on shared cores a second thread makes small matrix products 10 to 30 times
# slower. The rest keeps libraries from phoning home or printing over the live view.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}

# A pack's tensors are large enough for malloc to map and unmap them at every step, and the page
# faults cost a quarter of its time; these keep the memory.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**26),
}

DRIVER_RESOURCE = "TRAIN_DRIVER"
"""Custom resource of nodes that must not be preempted; trials stay there where it exists."""

STARTS = 4
"""Tries to start Ray on this machine."""


class Cluster(NamedTuple):
    """What there is to work with."""

    dashboard: str
    """URL, or "" without one."""
    packs_at_once: int
    pins_drivers: bool
    """Whether nodes for trial drivers are marked with `DRIVER_RESOURCE`."""


def connect(execution: Execution) -> Cluster:
    """The cluster of `RAY_ADDRESS` (a submitted job has it), or a new one on this machine."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not ray.is_initialized():
        if os.environ.get("RAY_ADDRESS"):
            _init(address="auto")
        else:
            _start_here()
    resources = ray.cluster_resources()
    return Cluster(
        dashboard=_dashboard(),
        packs_at_once=packs_that_fit(
            execution, resources.get("CPU", 1.0), resources.get("GPU", 0.0)
        ),
        pins_drivers=DRIVER_RESOURCE in resources,
    )


def _init(**where: Any) -> None:
    ray.init(
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": ENVIRONMENT},
        **where,
    )


def _start_here() -> None:
    """A Ray of one's own. On a busy machine its start can outlast the half minute that Ray allows
    it, so it is tried again."""
    for tries_left in reversed(range(STARTS)):
        try:
            return _init(address="local", dashboard_host="127.0.0.1")
        except Exception as error:  # Ray raises the bare class
            if "timed out during startup" not in str(error) or not tries_left:
                raise
            ray.shutdown()


def _dashboard() -> str:
    from ray._private.worker import get_dashboard_url

    found = get_dashboard_url()
    return f"http://{found}" if found else ""
