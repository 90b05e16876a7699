"""What is known of judges: what they are asked, what they may name, and how they are recognised.

A profile is found in what a judge's folder itself says (its chat template), or at an endpoint in
its model's name; a person may name one. A guard whose verdicts have another form is refused by
name: read as one of ours, its verdicts would be wrong or none.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raycib.config import digest
from raycib.errors import UserError
from raycib.evals.chat_prompt import CHAT_FORM, DELIMITERS, HAZARDS

READING = 1
"""Raised whenever the same text would be read as another verdict (`raycib.evals.verdict_forms`), or
the same conversation be put to a judge in another way (`raycib.evals.judge_prompt`)."""


@dataclass(frozen=True)
class Profile:
    """How a kind of judge is asked and read."""

    name: str
    about: str
    hazards: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The categories that it may name, each with the names that its versions give it."""
    prefix: str = ""
    """What it always says first; given to it, unless its template already ends so."""
    instructed: bool = False
    """Whether it is told the task in words (any instruction-following model); else its own chat
    template, or its server's, makes its task of the conversation."""
    tokens: int = 64
    """Of a verdict, at most."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The labels of the hazards."""
        return tuple(self.hazards)

    def form(self, as_text: bool = False) -> str:
        """sha256 of what it is sent, as token ids or `as_text`, and of how its verdict is read, for
        a judge's key."""
        told = CHAT_FORM if self.instructed else DELIMITERS if as_text else ""
        names = [name for names in self.hazards.values() for name in names]
        parts = [self.name, self.prefix, *self.categories, told, *names]
        return digest({"form": parts, "tokens": self.tokens, "reading": READING})


def _first(count: int) -> dict[str, tuple[str, ...]]:
    """The first hazards of MLCommons' list as Llama Guard 3 and 4 have it."""
    return dict(list(HAZARDS.items())[:count])


WORLD = Profile(
    "world",
    "the embedded world's guard",
    {"S1": (), "S2": (), "S3": ()},
    tokens=16,
)
INSTRUCT = Profile(
    "instruct",
    "any instruction-following model, told to say safe or unsafe",
    HAZARDS,
    instructed=True,
    tokens=1024,  # a model that thinks first needs room; one that does not stops by itself
)
PROFILES = {
    profile.name: profile
    for profile in (
        WORLD,
        Profile(
            "llama-guard-1",
            "LlamaGuard-7b: O1 to O6",
            {
                "O1": ("Violence and Hate",),
                "O2": ("Sexual Content",),
                "O3": ("Criminal Planning",),
                "O4": ("Guns and Illegal Weapons",),
                "O5": ("Regulated or Controlled Substances",),
                "O6": ("Self-Harm",),
            },
        ),
        Profile(
            "llama-guard-2",
            "Meta-Llama-Guard-2-8B: S1 to S11",
            {
                "S1": ("Violent Crimes",),
                "S2": ("Non-Violent Crimes",),
                "S3": ("Sex-Related Crimes",),
                "S4": ("Child Sexual Exploitation",),
                "S5": ("Specialized Advice",),
                "S6": ("Privacy",),
                "S7": ("Intellectual Property",),
                "S8": ("Indiscriminate Weapons",),
                "S9": ("Hate",),
                "S10": ("Suicide & Self-Harm",),
                "S11": ("Sexual Content",),
            },
            prefix="\n\n",
        ),
        Profile("llama-guard-3", "Llama-Guard-3-8B: S1 to S14", _first(14), prefix="\n\n"),
        Profile(
            "llama-guard-3-1b", "Llama-Guard-3-1B and -11B-Vision: S1 to S13", _first(13), "\n\n"
        ),
        Profile("llama-guard-4", "Llama-Guard-4-12B: S1 to S14", _first(14), prefix="\n\n"),
        Profile(
            "safe-unsafe",
            "a guard with a template of its own that says safe or unsafe first",
            HAZARDS,
        ),
        INSTRUCT,
    )
}


@dataclass(frozen=True)
class _Foreign:
    """A guard that cannot be read yet."""

    name: str
    called: str
    """Regular expression for its models' names, lower case."""
    marks: tuple[str, ...] = ()
    """Of its chat template; one is enough."""


_FOREIGN = (
    _Foreign("WildGuard", r"wild-?guard", ("Harmful request", "Response refusal")),
    _Foreign("Qwen3Guard", r"qwen-?3-?guard", ("Controversial",)),
    _Foreign("ShieldGemma", r"shield-?gemma", ("policy expert trying to help",)),
    _Foreign("Granite Guardian", r"granite.*guardian",
             ("start_of_risk_definition", "guardian_config", "risk_name")),
    _Foreign("HarmBench's classifier", r"harmbench|mistral-7b-val-cls", ("red teaming language",)),
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
    for guard in _FOREIGN:
        if any(mark in template for mark in guard.marks):
            raise _refused(source, guard.name)
    found = _of_template(template)
    if chosen and found and chosen is not found:
        raise UserError(
            f"--judge-profile {chosen.name}: the chat template in {source!r} is that of "
            f"{found.name}; leave the option out"
        )
    if chosen or found:
        return chosen or found  # pyright: ignore[reportReturnType]
    for name in (Path(source).name, source, str(config.get("_name_or_path", ""))):
        if guard := _foreign(name):
            raise _refused(source, guard.name)
    raise UserError(
        f"how the judge {source!r} is asked and read is not known from its chat template; name "
        f"it with --judge-profile: {_menu()}"
    )


def endpoint_profile(model: str, wanted: str | None) -> Profile:
    """The profile of a model at a chat endpoint: by its name, or as `wanted`; any model that is no
    guard known by name is told what to do. Raises `UserError` for a guard that cannot be read."""
    if chosen := _named(wanted):
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


def _foreign(name: str) -> _Foreign | None:
    return next((guard for guard in _FOREIGN if re.search(guard.called, name.lower())), None)


def _refused(source: str, guard: str) -> UserError:
    return UserError(
        f"the judge {source!r} is {guard}, not supported yet: its verdict is in another form; use "
        "a Llama Guard, or an instruction-following model behind --judge-url"
    )


def _menu() -> str:
    return ", ".join(f"{name} ({profile.about})" for name, profile in PROFILES.items())
