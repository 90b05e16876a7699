"""What a process that trains holds: its own peak, and nothing that is not needed any more."""

import subprocess
import sys

import torch

from raycib.training.memory import peak_bytes

CHILD = """
import torch
from pathlib import Path
from raycib.training.memory import give_back, keep_memory, peak_bytes

def held():
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in x)
    return 1024 * int(line.split()[1])

print(peak_bytes(torch.device("cpu")))
keep_memory()
tensors = [torch.ones(2**18) for _ in range(200)]
above = torch.ones(2**18)
tensors.append(tensors)
before = held()
del tensors
give_back()
print(before - held())
"""
"""Its peak, and what it gave back of 200 MiB in a cycle, below what it needs."""


def test_a_process_knows_its_own_peak_and_gives_back_what_it_kept() -> None:
    """The system's usual counter is handed on to whoever is started. Memory that a process keeps
    stayed with it when its training was over."""
    held = torch.ones(2**28)  # 1 GiB
    own = peak_bytes(torch.device("cpu"))
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert own > held.nbytes
    peak, given = map(int, done.stdout.split())
    assert 2**26 < peak < 2**30
    assert given > 190 * 2**20
