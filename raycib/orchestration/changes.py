"""`--set part.name=value`: settings changed from the command line, validated like any other."""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from raycib.errors import UserError
from raycib.spec import METHODS, LoRASpec, Spec, TrainerSpec

Part = TypeVar("Part", bound=Spec)
CHANGEABLE: dict[str, type[Spec]] = {**METHODS, "trainer": TrainerSpec, "lora": LoRASpec}
"""`lora` is the adapter's shape: the method of that name has no settings."""


def read_changes(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`--set` options by part; `UserError` for a part or a name that does not exist."""
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        part, _, name = path.partition(".")
        if not equals or part not in CHANGEABLE:
            raise UserError(
                f"--set {text!r}: write PART.NAME=VALUE with a part of {', '.join(CHANGEABLE)}"
            )
        if name not in (names := CHANGEABLE[part].model_fields):
            raise UserError(f"--set {text!r}: {part} has no {name!r}; it has {', '.join(names)}")
        try:
            found.setdefault(part, {})[name] = json.loads(value)
        except json.JSONDecodeError:
            found.setdefault(part, {})[name] = value
    return found


def changed(spec: Part, changes: dict[str, Any]) -> Part:
    """The spec with some fields replaced, and validated anew."""
    return type(spec).model_validate(spec.model_dump() | changes)
