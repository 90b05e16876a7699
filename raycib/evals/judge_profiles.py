"""How judges are recognised, or refused by name.

A profile is found in what a judge's folder itself says (its chat template, else its name), or at an
endpoint in its model's name; a person may name one. A guard whose verdicts have a form that is not
known is refused: read as another's, its verdicts would be wrong or none.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raycib.errors import UserError
from raycib.evals.guards import INSTRUCT, PROFILES, WORLD
from raycib.evals.judge_profile import Profile

__all__ = ["PROFILES", "endpoint_profile", "folder_profile"]


@dataclass(frozen=True)
class _Foreign:
    """A guard that cannot be read yet."""

    name: str
    called: str
    """Regular expression for its models' names, lower case."""
    marks: tuple[str, ...] = ()
    """Of its chat template; one is enough."""


_FOREIGN = (
    _Foreign("a Qwen3Guard that writes no text", r"qwen-?3-?guard"),
    _Foreign("a Granite Guardian of another form", r"granite.*guardian", ("guardian_config",)),
    _Foreign("a classifier of HarmBench of another form", r"harmbench|mistral-7b-val-cls"),
    _Foreign("NemoGuard or Aegis", r"nemo-?guard|nemotron.*safety|aegis", ("User Safety",)),
    _Foreign("PolyGuard", r"poly-?guard"),
    _Foreign("MD-Judge", r"md-?judge"),
    _Foreign("Prompt Guard", r"prompt-?guard"),
    _Foreign("a moderation model of OpenAI", r"omni-moderation|text-moderation"),
)  # fmt: skip

_LABEL = re.compile(r"(?:\b|(?<=\\n))([SO])([1-9]\d?)\b(?=[\"']?\s{0,3}:)")
_LLAMA_GUARD = "First line must read"


def folder_profile(folder: Path, source: str, wanted: str | None) -> Profile:
    """The profile of the judge in a folder, which may be `wanted` by name.

    Raises `UserError` for one that is not known, cannot be read, or is another than `wanted`.
    """
    chosen = _named(wanted)
    config = _object(folder / "config.json")
    if "Classification" in (kind := str(config.get("architectures"))):
        raise UserError(
            f"the judge {source!r} is a classifier ({kind}) and writes no verdict: not supported"
        )
    template = _template(folder)
    found = _of_template(template)
    if found is None:
        for guard in _FOREIGN:
            if any(mark in template for mark in guard.marks):
                raise _refused(source, guard.name)
    if chosen and found and not _same_models(chosen, found):
        raise UserError(
            f"--judge-profile {chosen.name}: the chat template in {source!r} is that of "
            f"{found.name}; leave the option out"
        )
    if chosen or found:
        return chosen or found  # pyright: ignore[reportReturnType]
    for name in (Path(source).name, source, str(config.get("_name_or_path", ""))):
        if profile := _called(name):
            return profile
        if guard := _foreign(name):
            raise _refused(source, guard.name)
    raise UserError(
        f"how the judge {source!r} is asked and read is not known from its chat template; name "
        f"it with --judge-profile: {_menu()}"
    )


def endpoint_profile(model: str, wanted: str | None) -> Profile:
    """The profile of a model at a chat endpoint: by its name, or as `wanted`; any model that is no
    guard known by name is told what to do. Raises `UserError` for a guard that cannot be read."""
    if chosen := _named(wanted) or _called(model):
        if chosen.asking.bare:
            raise UserError(
                f"the judge {model!r} is asked in a text of its own ({chosen.name}), which a chat "
                "endpoint puts into another; give its folder or hub id with --judge"
            )
        return chosen
    if guard := _foreign(model):
        raise _refused(model, guard.name)
    called = re.search(r"llama[-_ ]?guard[-_ ]?(\d?)(?:\D.*\b(1b|11b)\b)?", model.lower())
    if called is None:
        return INSTRUCT
    number, size = called.groups()
    name = f"llama-guard-{number}-1b" if size and number == "3" else f"llama-guard-{number}"
    if re.search(r"llama[-_ ]?guard-?7b", model.lower()):
        name = "llama-guard-1"
    if name not in PROFILES:
        raise UserError(
            f"the judge {model!r} is a Llama Guard of an unknown version; name it with "
            f"--judge-profile: {_menu()}"
        )
    return PROFILES[name]


def _of_template(template: str) -> Profile | None:
    if "<guard>" in template:
        return WORLD
    for profile in PROFILES.values():
        if profile.marks and all(mark in template for mark in profile.marks):
            return profile
    if _LLAMA_GUARD not in template:
        return None
    labels = {letter + number for letter, number in _LABEL.findall(template)}
    newer = "<|header_start|>" in template
    for profile in PROFILES.values():
        if profile.name.startswith("llama-guard") and set(profile.categories) == labels:
            return PROFILES["llama-guard-4"] if newer else profile
    return None


def _template(folder: Path) -> str:
    """The chat templates that a folder holds, one after the other; empty where there is none."""
    found = [_object(folder / "tokenizer_config.json").get("chat_template")]
    found.append(_object(folder / "chat_template.json").get("chat_template"))
    texts = [one if isinstance(one, str) else json.dumps(one) for one in found if one]
    for path in sorted(folder.glob("*.jinja")):
        texts.append(path.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(texts)


def _object(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _named(wanted: str | None) -> Profile | None:
    if wanted is None:
        return None
    if wanted not in PROFILES:
        raise UserError(f"--judge-profile: no profile {wanted!r}; there is {_menu()}")
    return PROFILES[wanted]


def _same_models(one: Profile, other: Profile) -> bool:
    return one is other or (bool(one.family) and one.family == other.family)


def _called(name: str) -> Profile | None:
    known = (profile for profile in PROFILES.values() if profile.called)
    return next((one for one in known if re.search(one.called, name.lower())), None)


def _foreign(name: str) -> _Foreign | None:
    return next((guard for guard in _FOREIGN if re.search(guard.called, name.lower())), None)


def _refused(source: str, guard: str) -> UserError:
    return UserError(
        f"the judge {source!r} is {guard}, not supported yet: its verdict is in another form; use "
        "a Llama Guard, or an instruction-following model behind --judge-url"
    )


def _menu() -> str:
    return ", ".join(f"{name} ({profile.about})" for name, profile in PROFILES.items())
