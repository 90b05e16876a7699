"""How a conversation is put before a judge: as itself, in a published text, with a policy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from raycib.config import digest

PROMPT, ANSWER, TAG = "{prompt}", "{answer}", "{tag}"
"""Slots of a text, each of the first two once and in this order."""


@dataclass(frozen=True)
class Asking:
    """What stands around a conversation. In its plainest form nothing: a guard's own chat template
    makes its task of the two turns."""

    text: str = ""
    """In place of the turns: one turn with slots for prompt, answer and perhaps a tag."""
    bare: bool = False
    """Whether the text is all that the judge is given, without its chat template."""
    system: str = ""
    """A turn before them."""
    last: str = ""
    """A user's turn after them."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the chat template is told besides."""

    @property
    def identity(self) -> str:
        """sha256 of all of it, for a judge's key."""
        parts = [self.text, self.bare, self.system, self.last, dict(self.settings)]
        return digest({"asking": parts})

    def filled(self, prompt: str, answer: str, tag: str = "0") -> str:
        """The text around a prompt and an answer, whatever they hold."""
        before, rest = self.text.split(PROMPT)
        between, after = rest.split(ANSWER)
        head, middle, tail = (part.replace(TAG, tag) for part in (before, between, after))
        return head + prompt + middle + answer + tail

    def turns(self, prompt: str, answer: str, tag: str = "0") -> list[dict[str, str]]:
        """The turns that a chat template, or a chat endpoint, is given."""
        own = [("user", prompt), ("assistant", answer)]
        if self.text:
            own = [("user", self.filled(prompt, answer, tag))]
        before = [("system", self.system)] if self.system else []
        after = [("user", self.last)] if self.last else []
        return [{"role": role, "content": text} for role, text in (*before, *own, *after)]


CONVERSATION = Asking()
"""The conversation itself."""


def published(name: str) -> str:
    """A text in `raycib/evals/forms`, word for word."""
    return files("raycib.evals").joinpath("forms", f"{name}.txt").read_text(encoding="utf-8")
