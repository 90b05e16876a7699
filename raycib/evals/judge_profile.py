"""What is known of a kind of judge: what it is asked, what it may name, how its verdict is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raycib.config import digest
from raycib.evals.chat_prompt import CHAT_FORM, DELIMITERS, INSTRUCTION
from raycib.evals.guard_verdicts import Reading
from raycib.evals.judge_asking import CONVERSATION, Asking
from raycib.evals.verdict_forms import Verdict, parse_verdict

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
    asking: Asking = CONVERSATION
    """How a conversation is put before it."""
    tokens: int = 64
    """Of a verdict, at most."""
    reading: Reading | None = None
    """How its verdict is read; None: it says safe or unsafe (`raycib.evals.verdict_forms`)."""
    marks: tuple[str, ...] = ()
    """Of its chat template, by which a folder is recognised: all of them."""
    called: str = ""
    """Regular expression for the names of its models, lower case, where no template tells."""
    family: str = ""
    """Profiles of one family are of the same models; one of them may be named in place of the one
    that is recognised."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The labels of the hazards."""
        return tuple(self.hazards)

    def read(self, raw: str, complete: bool) -> Verdict:
        """The verdict in what it said; `complete` is false where it was cut off. Never raises."""
        if self.reading is None:
            return parse_verdict(raw, self.hazards, complete=complete)
        return self.reading.read(raw, self.hazards, complete)

    def form(self, as_text: bool = False) -> str:
        """sha256 of what it is sent, as token ids or `as_text`, and of how its verdict is read, for
        a judge's key."""
        text = as_text or self.asking.text
        told = CHAT_FORM if self.asking is INSTRUCTION else DELIMITERS if text else ""
        names = [name for names in self.hazards.values() for name in names]
        parts = [self.name, self.prefix, *self.categories, told, *names]
        if self.asking not in (CONVERSATION, INSTRUCTION):
            parts.append(self.asking.identity)
        if self.reading is not None:
            parts.append(repr(self.reading))
        return digest({"form": parts, "tokens": self.tokens, "reading": READING})
