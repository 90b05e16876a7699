"""The files in cluster/, and what the preset that they are for starts on their nodes."""

from pathlib import Path
from typing import Any

import yaml

from raycib.config.presets.papers import LLAMA31_8B

CLUSTER = Path(__file__).parents[2] / "cluster"
EXECUTION = LLAMA31_8B.execution


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / name).read_text())


def needs() -> list[tuple[float, float]]:
    """(GPUs, CPUs) of each thing that the preset starts on a node of its own choice."""
    return [
        (EXECUTION.gpus_per_worker, EXECUTION.cpus_per_worker),
        (EXECUTION.engine_gpus, EXECUTION.engine_cpus),
        (EXECUTION.judge_gpus, EXECUTION.judge_cpus),
    ]
