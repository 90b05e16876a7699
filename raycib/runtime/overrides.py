"""`--set part.name=value` and `--strengths`: settings from the command line, validated like any
other."""

import json
import math
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from raycib.config import LoRASpec, Method, TrainerSpec
from raycib.config.menu import menu, named
from raycib.config.presets import BaseFormat, Execution
from raycib.console import describe
from raycib.errors import UserError

Part = TypeVar("Part", bound=BaseModel)


EXECUTION = "execution"
"""The part that no cell has: how the work is spread, in no key."""
ALIGNMENT = "alignment"
"""How the base is aligned, where it is."""


BASE = "model"
"""How the base is held, which is all of it that may be set."""


def read_methods(text: str) -> tuple[str, ...]:
    """`--methods`: kinds of the menu, and places of a person's own, which are on it from now on.
    `UserError` for one that does not exist."""
    try:
        return tuple(named(part.strip())[0] for part in text.split(","))
    except UserError as error:
        raise UserError(f"--methods: {error}") from error


def changeable() -> dict[str, type[BaseModel]]:
    """What `--set` may change. `lora` is the adapter's shape: the method of that name has no
    settings."""
    trainers = {"trainer": TrainerSpec, ALIGNMENT: TrainerSpec}
    return {**menu(), **trainers, "lora": LoRASpec, BASE: BaseFormat, EXECUTION: Execution}


def read_changes(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`--set` options by part; `UserError` for a part or a name that does not exist."""
    found: dict[str, dict[str, Any]] = {}
    parts = changeable()
    for text in texts:
        path, equals, value = text.partition("=")
        part, _, name = path.partition(".")
        if not equals or part not in parts:
            raise UserError(
                f"--set {text!r}: write PART.NAME=VALUE with a part of {', '.join(parts)}"
            )
        if name not in (names := parts[part].model_fields):
            raise UserError(f"--set {text!r}: {part} has no {name!r}; it has {', '.join(names)}")
        if name in found.setdefault(part, {}):
            raise UserError(f"--set {path}: it is set twice; give it once")
        try:
            found[part][name] = json.loads(value)
        except RecursionError as error:
            raise UserError(f"--set {path}: its value is nested too deeply") from error
        except ValueError:  # a word, or a number of too many digits
            found[part][name] = value
    return found


def changed(part: str, spec: Part, overrides: dict[str, Any]) -> Part:
    """The spec of a `part` with some fields replaced, and validated anew. true is no number."""
    try:
        found = type(spec).model_validate(dict(spec) | overrides)
    except ValidationError as error:
        if not overrides:
            raise
        raise UserError(describe(error, f"--set {part}")) from error
    for name, value in overrides.items():
        if isinstance(value, bool) and not isinstance(getattr(found, name), bool):
            raise UserError(
                f"--set {part}.{name}={str(value).lower()}: {name} is no switch; give a value"
            )
    return found


def numbers(text: str, option: str = "--strengths", like: str = "0,1,5") -> tuple[float, ...]:
    """A list of numbers as an `option` has it, before any method has seen them; `UserError` for
    what is no number or comes twice, if only in the six digits by which tables tell them apart."""
    try:
        found = tuple(float(part) + 0.0 for part in text.split(","))  # -0 is 0
    except ValueError as error:
        raise UserError(f"{option} {text!r}: {error}; give numbers like {like}") from error
    if any(math.isnan(number) for number in found):
        raise UserError(f"{option} {text!r}: nan is no number; give numbers like {like}")
    told = [f"{number:g}" for number in found]
    if twice := [number for number in told if told.count(number) > 1]:
        raise UserError(f"{option} {text!r}: {twice[0]} comes twice; give each once")
    return found


def ratios(text: str) -> tuple[float, ...]:
    """`--harmful-ratio`, from the smallest; `UserError` for what is no share."""
    found = numbers(text, "--harmful-ratio", "0,0.01,0.05,0.1")
    if wrong := [one for one in found if not 0 <= one <= 1]:
        raise UserError(f"--harmful-ratio {text!r}: {wrong[0]:g} is no share; give 0 to 1")
    return tuple(sorted(found))


def read_strengths(text: str, method: type[Method]) -> tuple[float, ...]:
    """`--strengths` for a method; `UserError` for what the method refuses."""
    found = numbers(text)
    kind = method.model_fields["kind"].default
    for strength in found:
        try:
            method.at(strength)
        except OverflowError as error:
            raise UserError(f"--strengths: {kind} cannot have {strength:g}: {error}") from error
        except ValidationError as error:
            # What else it needs is not about its strength.
            wrong = [one for one in error.errors() if one["type"] != "missing"]
            if wrong:
                reason = f"{wrong[0]['msg']} (as {method.__name__}.{wrong[0]['loc'][0]})"
                raise UserError(
                    f"--strengths: {kind} cannot have {strength:g}: {reason}"
                ) from error
    return found
