"""Turns of a conversation as a model's chat template writes them, the same every day."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from raycib.config import TODAY
from raycib.data.time_limit import TookTooLong, time_limit
from raycib.errors import UserError

SECONDS = 10.0
"""For a conversation; templates take a thousandth of one."""
LONGEST = 10_000_000
"""Characters of a rendered conversation; more is a template gone wrong."""

Turns = Sequence[dict[str, str]]


def asked(prompt: str, system: str = "") -> list[dict[str, str]]:
    """The turns before the model's answer."""
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": prompt}]


class TemplateError(UserError):
    """A template that cannot write a conversation; says why."""


def hold_the_date(tokenizer: Any) -> Any:
    """The same tokenizer, whose templates are told one day for ever, whoever renders them."""
    tokenizer.apply_chat_template = partial(tokenizer.apply_chat_template, strftime_now=fixed_day)
    return tokenizer


def fixed_day(form: str) -> str:
    """What `strftime_now` gives to a template."""
    return datetime.fromisoformat(TODAY).strftime(form)


def render(tokenizer: Any, turns: Turns, *, opening: bool = False, **given: Any) -> str:
    """The text of `turns`; with `opening`, up to where the model's answer is to begin.

    Thinking is switched off where the template knows of it (`enable_thinking`). Raises
    `TemplateError`, in one line, where the template does, or takes too long.
    """
    known = {"strftime_now": fixed_day, "enable_thinking": False} | given

    def written() -> str:
        return tokenizer.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=opening, **known
        )

    text = _tried(tokenizer, written)
    if len(text) > LONGEST:
        raise TemplateError(f"{name_of(tokenizer)} writes {len(text)} characters for one turn")
    return text


def _tried(tokenizer: Any, written: Callable[[], str]) -> str:
    try:
        with time_limit(SECONDS):
            return written()
    except TookTooLong:
        raise TemplateError(
            f"{name_of(tokenizer)} has not written a conversation in {SECONDS:g} s; "
            "does it loop for ever?"
        ) from None
    except Exception as error:  # a template is a program: it may raise anything
        said = " ".join(str(error).split()) or type(error).__name__
        raise TemplateError(
            f"{name_of(tokenizer)} cannot write this conversation: {said}"
        ) from error


def name_of(tokenizer: Any) -> str:
    """How errors call a tokenizer's template."""
    folder = getattr(tokenizer, "name_or_path", "")
    return f"the chat template of {folder!r}" if folder else "the chat template"
