"""The peak of a process is its own."""

import subprocess
import sys

import torch

from raycib.training.memory import peak_bytes

CHILD = """
import torch
from raycib.training.memory import peak_bytes
print(peak_bytes(torch.device("cpu")))
"""


def test_a_peak_is_not_that_of_the_process_that_started_this_one() -> None:
    """The system's usual counter is handed on to whoever is started."""
    held = torch.ones(2**28)  # 1 GiB
    own = peak_bytes(torch.device("cpu"))
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert own > held.nbytes
    assert 2**26 < int(done.stdout) < 2**30
