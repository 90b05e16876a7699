"""Functions of one's own, named on the command line as "my_scorers.py:function" or
"package.module:function"."""

import hashlib
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from raycib.errors import UserError


def load(option: str, place: str) -> tuple[Any, str]:
    """What stands at a place, and sha256 of its module's text (what that imports is not covered).
    Raises `UserError` that names the option."""
    where, _, name = place.rpartition(":")
    try:
        module = _of_file(Path(where)) if where.endswith(".py") else import_module(where)
        text = Path(module.__file__ or "").read_bytes()
        return getattr(module, name), hashlib.sha256(text).hexdigest()
    except Exception as error:  # a module of one's own may raise anything when it is imported
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{option} {place!r} cannot be imported: {reason:.200}") from error


def _of_file(file: Path) -> ModuleType:
    spec = spec_from_file_location(file.stem, file.expanduser().resolve())
    assert spec and spec.loader  # the name ends in .py
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
