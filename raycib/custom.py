"""Code of a person's own, named as `my_file.py:Name` or `package.module:Name`."""

import hashlib
import importlib
import sys
from pathlib import Path
from types import ModuleType

from raycib.errors import UserError


def module_at(where: str, place: str) -> tuple[ModuleType, str]:
    """The module in a file and its text, or an installed one and ""; `place` is how a person named
    it. Raises `UserError`."""
    if not where.endswith(".py"):
        return imported(where, place), ""
    file = Path(where).expanduser().absolute()
    try:
        text = file.read_text()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{place}: cannot read {file}: {why}; give a file that is there") from error
    return run(text, file), text


def run(text: str, file: Path) -> ModuleType:
    """A module of this text, the same one whenever the text is the same. It may import what is
    installed, but not the files beside it: other machines lack them."""
    name = f"raycib_own_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module
    try:
        exec(compile(text, str(file), "exec"), vars(module))
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{file}: {type(error).__name__}: {error}") from error
    return module


def imported(name: str, place: str) -> ModuleType:
    """An installed module. Raises `UserError`."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # a module may raise anything when it is imported
        raise UserError(
            f"{place}: {error}; install its package on every machine, or give the file: "
            "path/to/my_file.py:Name"
        ) from error


def code_of(module: ModuleType, text: str = "") -> str:
    """sha256 of a module's text, or of its file. What it imports is not covered."""
    raw = text.encode() if text else Path(str(module.__file__)).read_bytes()
    return hashlib.sha256(raw).hexdigest()
