"""Functions of one's own, named on the command line as "package.module:function"."""

import hashlib
from importlib import import_module
from pathlib import Path
from typing import Any

from raycib.errors import UserError


def load(option: str, place: str) -> tuple[Any, str]:
    """What stands at a place, and sha256 of its module's text (what that imports is not covered).
    Raises `UserError` that names the option."""
    module, _, name = place.partition(":")
    try:
        found = import_module(module)
        text = Path(found.__file__ or "").read_bytes()
        return getattr(found, name), hashlib.sha256(text).hexdigest()
    except Exception as error:  # a module of one's own may raise anything when it is imported
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{option} {place!r} cannot be imported: {reason:.200}") from error
