"""GPUs: their memory, their peak, and what an hour costs."""

import os
import re
import subprocess
from functools import cache
from typing import NamedTuple

from raycib.errors import UserError

UTILISATION = 0.4
"""Of the peak, in training: the best published figure for LoRA on an 8B model is 40.6 % (NVIDIA
NeMo AutoModel, one H100, bfloat16, October 2025: 12,473 tokens a second at 4 FLOPs a weight)."""
ANSWERING = 0.1
"""Of the peak, where words are generated: reading weights and keys bounds it. Assumed: a roofline
of 520 answers at once by an 8B model gives 0.16 to 0.3, of which several adapters cost a third."""
PRICED = "May 2026"
"""When prices were looked at: on-demand, of specialised providers, middle of the range
(mercatus-ai.com, "cloud GPU pricing"). Others ask half or twice as much."""


class GPU(NamedTuple):
    """A kind of accelerator."""

    name: str
    memory: float
    """Bytes."""
    peak: float
    """FLOP/s in dense bfloat16, by its maker's data sheet."""
    float32: float
    """The same in float32, which torch does not round to TF32 unless asked."""
    price: float | None = None
    """Dollars an hour, where one was found."""


GB = 1e9
GPUS = {
    one.name: one
    for one in (
        GPU("B200", 180 * GB, 2250e12, 75e12),
        GPU("H200-NVL", 141 * GB, 835e12, 60e12),
        GPU("H200", 141 * GB, 989e12, 67e12, 4.0),
        GPU("H100-PCIe", 80 * GB, 756e12, 51e12),
        GPU("H100-NVL", 94 * GB, 835e12, 60e12),
        GPU("H100", 80 * GB, 989e12, 67e12, 3.0),
        GPU("A100", 80 * GB, 312e12, 19.5e12, 1.3),
        GPU("A100-40", 40 * GB, 312e12, 19.5e12),
        GPU("L40S", 48 * GB, 362e12, 91.6e12),
        GPU("A10", 24 * GB, 125e12, 31.2e12),
        GPU("L4", 24 * GB, 121e12, 30.3e12),
    )
}
USUAL = GPUS["H100"]
"""What a plan is about where no GPU is named or found."""


def gpu_named(name: str) -> GPU:
    """The GPU of that name; `UserError` lists what there is."""
    if name not in GPUS:
        raise UserError(f"--gpu {name!r}: there is {', '.join(GPUS)}")
    return GPUS[name]


def gpus_here() -> list[str]:
    """Name and memory of each NVIDIA GPU that a process started here may use, as the driver tells
    them ("NVIDIA H100 80GB HBM3, 81559 MiB"); of a part of one (MIG) it tells no memory. Empty
    without a driver, or without a device for it."""
    there = [line.split(", ", 2) for line in _told()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [rest for _, _, rest in there]
    found: list[str] = []
    for wanted in map(str.strip, visible.split(",")):
        part = wanted.startswith("MIG-") and bool(there)
        alike = [wanted] if part else [
            rest
            for number, uuid, rest in there
            if number == wanted or (wanted.startswith("GPU-") and uuid.startswith(wanted))
        ]  # fmt: skip
        if len(alike) != 1:
            break  # CUDA leaves out all that follows what it does not know
        found += alike
    return found


@cache
def _told() -> tuple[str, ...]:
    """Number, id, name and memory of every GPU, a line each; asked once, as it may take seconds."""
    query = "--query-gpu=index,uuid,name,memory.total"
    try:
        told = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ()
    lines = told.stdout.strip().splitlines() if told.returncode == 0 else []
    return tuple(line for line in lines if line.count(", ") >= 3)


def gpu_here() -> GPU | None:
    """The smallest GPU of this machine; its peak is that of the first of `GPUS` whose parts are all
    words of its name ("NVIDIA L40" is no L4, an "NVIDIA H100 PCIe" is slower than others), else 0.
    """
    found = []
    for line in gpus_here():
        name, _, memory = line.rpartition(",")
        size = memory.strip().partition(" ")[0]
        words = {*re.findall(r"\w+", name)}
        known = next((gpu for key, gpu in GPUS.items() if words >= {*key.split("-")}), None)
        if size.isdecimal():
            one = known or GPU(name, 0, 0.0, 0.0)
            found.append(one._replace(name=name, memory=int(size) * 2**20))
    return min(found, key=lambda gpu: gpu.memory, default=None)
