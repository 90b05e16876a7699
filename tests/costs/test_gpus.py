"""The GPUs of this machine: those that CUDA would show a process that starts here."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raycib.costs import gpus
from raycib.costs.gpus import gpu_here, gpus_here
from raycib.runtime.own import gpu_in_reach

TOLD = """0, GPU-aa11, NVIDIA H100 80GB HBM3, 81559 MiB
1, GPU-bb22, NVIDIA L4, 23034 MiB"""
H100, L4 = "NVIDIA H100 80GB HBM3, 81559 MiB", "NVIDIA L4, 23034 MiB"
Driver = Callable[..., None]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """What the driver's own program says, and its exit code."""

    def says(told: str, code: int = 0) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'end'\n{told}\nend\nexit {code}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    gpus._told.cache_clear()
    yield says
    gpus._told.cache_clear()


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, [H100, L4]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1", [L4]),
        ("1, 0", [L4, H100]),
        ("GPU-bb", [L4]),
        ("GPU-", []),  # of which there are two
        ("0,7,1", [H100]),
        ("MIG-cc33", ["MIG-cc33"]),
    ],
)
def test_what_cuda_hides_is_not_there(
    visible: str | None, found: list[str], driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves out what it does not know, and all that follows."""
    driver(TOLD)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_here() == found
    assert gpu_in_reach(local=False) is bool(found)
    smallest = gpu_here()
    sizes = [23034 if one == L4 else 81559 for one in found if "MiB" in one]
    assert (smallest and smallest.memory) == (min(sizes) * 2**20 if sizes else None)


@pytest.mark.parametrize(
    ("told", "code"),
    [("No devices were found", 0), ("couldn't communicate with the NVIDIA driver", 9), (TOLD, 6)],
)
def test_a_driver_without_a_device_is_no_gpu(told: str, code: int, driver: Driver) -> None:
    """In a container /proc shows the driver of the machine, whatever devices it was given."""
    driver(told, code)
    assert gpus_here() == [] and not gpu_in_reach(local=True)


def test_a_machine_without_a_driver_has_none(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-cc33")
    assert gpus_here() == []
